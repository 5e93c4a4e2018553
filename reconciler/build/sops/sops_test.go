package sops_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/reconciler/build/sops"
)

func read(t testing.TB, name ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keys(t testing.TB, names ...string) *sops.Keys {
	t.Helper()
	entries := map[string][]byte{}
	for _, name := range names {
		entries[name] = read(t, "keys", name)
	}
	k, err := sops.New(entries)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestReadsWhatSOPSWrites decrypts files made by the sops program, and compares
// with what that program made of them, byte for byte.
func TestReadsWhatSOPSWrites(t *testing.T) {
	files, err := filepath.Glob("testdata/encrypted/*")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			key := "test-only.agekey"
			for prefix, other := range map[string]string{"pgp-": "test-only.asc", "pq-": "test-only-pq.agekey", "ssh-": "test-only-ssh.agekey", "rsa-": "test-only-rsa.agekey"} {
				if strings.HasPrefix(name, prefix) {
					key = other
				}
			}
			k := keys(t, key)
			if strings.HasPrefix(name, "shamir-") {
				if _, err := k.Decrypt(read(t, "encrypted", name), sops.FormatOf(name)); err == nil || !strings.Contains(err.Error(), "2 of the groups") {
					t.Errorf("opened with a key of one group: %v", err)
				}
				k = keys(t, key, "test-only.asc")
			}
			data := read(t, "encrypted", name)
			if !sops.Encrypted(data, sops.FormatOf(name)) {
				t.Error("not recognised as encrypted")
			}
			plain, err := k.Decrypt(data, sops.FormatOf(name))
			if err != nil {
				t.Fatal(err)
			}
			base := name
			if !strings.Contains(name, "encrypted-") {
				base = name[strings.LastIndex(name, "-")+1:]
			}
			if want := read(t, "decrypted", base); !bytes.Equal(plain, want) {
				t.Errorf("decrypted:\n%s\nwant:\n%s", plain, want)
			}
		})
	}
}

// TestRefusesWhatWasChanged changes files as somebody with write access and no
// key could.
func TestRefusesWhatWasChanged(t *testing.T) {
	k := keys(t, "test-only.agekey")
	yaml := string(read(t, "encrypted", "age-all.yaml"))
	regex := string(read(t, "encrypted", "encrypted-regex-all.yaml"))
	line := func(text, with string) string {
		for l := range strings.SplitSeq(text, "\n") {
			if strings.Contains(l, with) {
				return l
			}
		}
		t.Fatalf("no line with %s", with)
		return ""
	}
	value := func(l string) string { _, v, _ := strings.Cut(l, ": "); return v }
	password, multi := value(line(yaml, "password: ENC")), value(line(yaml, "multi: ENC"))
	var list []string
	for l := range strings.SplitSeq(yaml, "\n") {
		if strings.Contains(l, "- ENC") && strings.Contains(l, "type:str") {
			list = append(list, l)
		}
	}
	listA, listB := list[0], list[1]
	for name, c := range map[string]struct{ text, want string }{
		"another value in its place":     {strings.Replace(yaml, password, multi, 1), "stringData.password does not match its authentication tag"},
		"a value in the clear":           {strings.Replace(yaml, password, "hunter2", 1), "stringData.password is not an encrypted value"},
		"a value of no string":           {strings.Replace(yaml, password, "12", 1), "stringData.password is not an encrypted value"},
		"a broken value":                 {strings.Replace(yaml, password, strings.Replace(password, "data:", "data:AAAA", 1), 1), "stringData.password does not match its authentication tag"},
		"elements of a list exchanged":   {strings.Replace(strings.Replace(strings.Replace(yaml, listA, "@", 1), listB, listA, 1), "@", listB, 1), "was changed after it was encrypted"},
		"a value removed":                {strings.Replace(yaml, line(yaml, "password: ENC")+"\n", "", 1), "was changed after it was encrypted"},
		"a value in the clear changed":   {strings.Replace(regex, "namespace: web", "namespace: kube-system", 1), "was changed after it was encrypted"},
		"a rule added":                   {strings.Replace(yaml, "unencrypted_suffix: _unencrypted", "encrypted_suffix: _unencrypted", 1), "was changed after it was encrypted"},
		"two rules":                      {yaml + "    encrypted_regex: x\n", "states more than one rule"},
		"the code removed":               {strings.Replace(yaml, line(yaml, "mac: ENC")+"\n", "", 1), "no authentication code"},
		"the code empty":                 {strings.Replace(yaml, line(yaml, "mac: ENC"), `    mac: ""`, 1), "no authentication code"},
		"the code of another file":       {strings.Replace(yaml, line(yaml, "mac: ENC"), line(regex, "mac: ENC"), 1), "(mac) does not match its authentication tag"},
		"the code a value of the file":   {strings.Replace(yaml, line(yaml, "mac: ENC"), "    mac: "+password, 1), "(mac) does not match its authentication tag"},
		"the time of the change changed": {strings.Replace(yaml, "lastmodified: \"20", "lastmodified: \"19", 1), "(mac) does not match its authentication tag"},
		"the code's cover changed":       {yaml + "    mac_only_encrypted: true\n", "was changed after it was encrypted"},
		"a key twice":                    {strings.Replace(yaml, "    password:", "    multi:", 1), `the key "multi" is there twice`},
		"no sops entry":                  {yaml[:strings.Index(yaml, "\nsops:")], "no sops entry"},
		"no mapping":                     {"- a\n", "is not a mapping"},
		"a bomb": {
			"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
			"unfolds to more than",
		},
		"an anchor in itself": {"a: &a\n  b: *a\n", "unfolds to more than"},
	} {
		t.Run(name, func(t *testing.T) {
			plain, err := k.Decrypt([]byte(c.text), sops.YAML)
			if err == nil {
				t.Fatalf("decrypted:\n%s", plain)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// TestUnopenedErrorNamesKeys is about what an operator needs to know.
func TestUnopenedErrorNamesKeys(t *testing.T) {
	data := read(t, "encrypted", "age-all.yaml")
	recipient := keys(t, "test-only.agekey").Recipients()[0]
	k, err := sops.New(map[string][]byte{
		"identity.agekey": read(t, "keys", "test-only-other.agekey"),
		"pgp.asc":         read(t, "keys", "test-only.asc"),
		"sops.aws-kms":    []byte("x"),
		"README":          []byte("x"),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Decrypt(data, sops.YAML)
	if err == nil {
		t.Fatal("decrypted with another key")
	}
	for _, want := range append(slices.Clone(k.Recipients()), recipient, "sops.aws-kms is not used", "sops updatekeys") {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	none, err := sops.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Decrypt(data, sops.YAML); err == nil || !strings.Contains(err.Error(), "no key is configured") {
		t.Errorf("%v", err)
	}
	cloud := strings.NewReplacer("    age:", "    kms:\n        - arn: x\n    ages:").Replace(string(data))
	if _, err := none.Decrypt([]byte(cloud), sops.YAML); err == nil || !strings.Contains(err.Error(), "encrypted for (AWS KMS)") {
		t.Errorf("%v", err)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	secret := "AGE-SECRET-KEY-1NOTAKEYBUTASECRET"
	for name, c := range map[string]struct{ content, want string }{
		"a.agekey": {secret, "does not hold age identities"},
		"b.agekey": {"AGE-PLUGIN-YUBIKEY-1QQQ", "plugins are not run"},
		"c.agekey": {"-----BEGIN OPENSSH PRIVATE KEY-----\n", "not an SSH private key"},
		"d.asc":    {"x", "not an OpenPGP key"},
	} {
		_, err := sops.New(map[string][]byte{name: []byte(c.content)})
		if err == nil || !strings.Contains(err.Error(), "decryption key "+name+": ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the key", name)
		}
	}
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]sops.Format{
		"a/b.yaml": sops.YAML, "b.yml": sops.YAML, "c.json": sops.JSON, ".dockerconfigjson": sops.JSON,
		".env": sops.Dotenv, "x.ini": sops.INI, "password": sops.Binary, "x.txt": sops.Binary,
	} {
		if got := sops.FormatOf(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestDetect(t *testing.T) {
	for name, want := range map[string]sops.Format{
		"age-all.yaml": sops.YAML, "age-all.json": sops.JSON, "age-all.env": sops.Dotenv, "age-all.ini": sops.INI, "age-all.txt": sops.JSON,
	} {
		if got, ok := sops.Detect(read(t, "encrypted", name)); !ok || got != want {
			t.Errorf("%s: %s, %t, want %s", name, got, ok, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(map[string]bool{"all.yaml": true, "all.json": true, "all.env": true, "all.ini": true, "all.txt": true})) {
		if got, ok := sops.Detect(read(t, "plain", name)); ok {
			t.Errorf("plain %s taken for encrypted %s", name, got)
		}
	}
}

// TestDocuments keeps together what was encrypted together.
func TestDocuments(t *testing.T) {
	whole := read(t, "encrypted", "age-documents.yaml")
	other := read(t, "encrypted", "encrypted-regex-all.yaml")
	file := bytes.Join([][]byte{[]byte("apiVersion: v1\nkind: ConfigMap\n"), whole, other}, []byte("\n---\n"))
	documents, err := sops.Documents(file, sops.YAML)
	if err != nil {
		t.Fatal(err)
	}
	var got []bool
	for _, d := range documents {
		got = append(got, d.Encrypted)
	}
	if want := []bool{false, true, true}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	k := keys(t, "test-only.agekey")
	for _, d := range documents[1:] {
		if _, err := k.Decrypt(d.Data, sops.YAML); err != nil {
			t.Error(err)
		}
	}
}

// FuzzDecrypt looks for input that panics, hangs, or gives plain text that was
// not authenticated: the keys are those that the seeds are encrypted for, so
// whatever opens must be one of the seeds' content.
func FuzzDecrypt(f *testing.F) {
	files, _ := filepath.Glob("testdata/encrypted/*")
	for _, file := range files {
		f.Add(read(f, "encrypted", filepath.Base(file)), int(sops.FormatOf(file)))
	}
	k := keys(f, "test-only.agekey")
	f.Fuzz(func(t *testing.T, data []byte, format int) {
		form := sops.Format(format)
		if form < sops.Binary || form > sops.INI {
			return
		}
		if _, err := sops.Documents(data, form); err != nil {
			return
		}
		plain, err := k.Decrypt(data, form)
		if err == nil && bytes.Contains(plain, []byte("ENC[AES256_GCM")) && !bytes.Contains(plain, []byte("#ENC")) && !bytes.Contains(plain, []byte("; ENC")) {
			t.Errorf("gave out what is still encrypted:\n%s", plain)
		}
	})
}
