package policy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
)

// indented puts a PEM text below a key of YAML.
func indented(text []byte, by int) string {
	pad := strings.Repeat(" ", by)
	return pad + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n"+pad) + "\n"
}

// spec is a policy about everything with the given authorities.
func spec(authorities string) string {
	return "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images:\n    - glob: \"**\"\n  authorities:\n" + authorities
}

func compile(text string, roots map[string][]byte) (*policy.Policy, error) {
	files := policy.Files{policy.File: []byte(text)}
	for name, data := range roots {
		files[name] = data
	}
	return policy.Compile(files)
}

func TestCompile(t *testing.T) {
	key := cosigntest.NewKey(t)
	sigstore := cosigntest.NewSigstore(t)
	text := `# what may run here
apiVersion: bothy.dev/v1alpha1
kind: ImageTrust
metadata: {name: site}
spec:
  noMatch: warn
  deny:
    - digest: sha256:` + strings.Repeat("ab", 32) + `
      reason: CVE-2026-1
---
` + spec("    - name: team\n      key:\n        data: |\n"+indented(key.PEM(t), 10)) + `---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: ci}
spec:
  mode: warn
  images: [{glob: "example.org/**"}]
  authorities:
    - keyless:
        identities: [{issuer: "https://issuer.example.com", subjectRegExp: ".*@example.com"}]
      attestations:
        - {name: built, predicateType: slsaprovenance1, policy: {type: cel, data: 'predicate.builder == "ci"'}}
    - static: {action: fail, message: never}
`
	p, err := compile(text, map[string][]byte{"trust/trusted_root.json": sigstore.TrustedRoot(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	if p.NoMatch != policy.Warn || p.Denied["sha256:"+strings.Repeat("ab", 32)] != "CVE-2026-1" || len(p.Rules) != 2 || len(p.Hash) != 64 {
		t.Fatalf("%+v", p)
	}
	if r := p.Rules[1]; !r.WarnOnly || r.Authorities[0].Attestations[0].PredicateType != "https://slsa.dev/provenance/v1" || r.Authorities[1].Static.Message != "never" || r.Authorities[1].Name != "authority-1" {
		t.Errorf("%+v", r)
	}
	if m := p.Matching("example.org/a/b:1", ""); len(m) != 2 {
		t.Errorf("%d rules match", len(m))
	}
}

// TestRefusals: what would not be obeyed is refused, where it stands.
func TestRefusals(t *testing.T) {
	pem := indented(cosigntest.NewKey(t).PEM(t), 10)
	key := "    - key:\n        data: |\n" + pem
	for name, c := range map[string]struct{ text, want string }{
		"nothing":              {"# nothing\n", "trust/images.yaml: is empty"},
		"another kind":         {"apiVersion: v1\nkind: Pod\n", "trust/images.yaml:2: kind: v1 Pod is not known here"},
		"an older version":     {strings.Replace(spec(key), "v1beta1", "v1alpha1", 1), ":2: kind: policy.sigstore.dev/v1alpha1"},
		"unknown field":        {spec(key) + "  foo: 1\n", "spec.foo: unknown field"},
		"second document":      {spec(key) + "---\n" + strings.Replace(spec(key), "name: p", "name: q", 1) + "  mode: soft\n", `:28: spec.mode: "soft" is not a mode`},
		"same name":            {spec(key) + "---\n" + spec(key), "there are two of ClusterImagePolicy p"},
		"no images":            {"apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  authorities:\n" + key, "spec.images: is empty"},
		"a regular expression": {strings.Replace(spec(key), `"**"`, `"^x$"`, 1), ":6: spec.images[0].glob:"},
		"no authorities":       {"apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images: [{glob: \"*\"}]\n", "spec.authorities: is empty"},
		"match":                {spec(key) + "  match: [{resource: pods}]\n", "spec.match: is not supported; remove it: the node enforces"},
		"policy of all":        {spec(key) + "  policy: {type: cue, data: x}\n", "spec.policy: is not supported"},
		"two in one":           {spec("    - static: {action: pass}\n      key: {data: x}\n"), ":8: spec.authorities[0]: has 2 of key, keyless and static"},
		"none in one":          {spec("    - name: x\n"), "has 0 of key"},
		"source":               {spec("    - source: [{oci: x}]\n      key:\n        data: |\n" + pem), "spec.authorities[0].source: is not supported; signatures travel"},
		"secret":               {spec("    - key: {secretRef: {name: x}}\n"), "key.secretRef: is not supported"},
		"kms":                  {spec("    - key: {kms: \"gcpkms://x\"}\n"), "key.kms: is not supported"},
		"no key":               {spec("    - key: {hashAlgorithm: sha256}\n"), "key.data: is empty"},
		"no PEM":               {spec("    - key: {data: hello}\n"), "not a PEM public key"},
		"weak hash":            {spec(strings.Replace(key, "- key:\n", "- key:\n        hashAlgorithm: md5\n", 1)), `hashAlgorithm: "md5" is not supported`},
		"everybody":            {spec("    - keyless: {identities: []}\n"), "would trust everybody"},
		"half an identity":     {spec("    - keyless: {identities: [{issuer: x}]}\n"), "needs one of issuer"},
		"no root":              {spec("    - keyless: {identities: [{issuer: x, subject: y}]}\n"), "there is no trust/trusted_root.json; commit trusted_root.json there"},
		"root elsewhere":       {spec("    - keyless: {trustRootRef: ../x, identities: [{issuer: x, subject: y}]}\n"), "is not the name of a trusted root"},
		"cue":                  {spec(key + "      attestations: [{name: a, predicateType: vuln, policy: {type: cue, data: x}}]\n"), `"cue" is not supported; rewrite it in CEL`},
		"no condition":         {spec(key + "      attestations: [{name: a, predicateType: vuln, policy: {type: cel, data: '1 + 1'}}]\n"), "is int and not a condition"},
		"remote policy":        {spec(key + "      attestations: [{name: a, predicateType: vuln, policy: {type: cel, data: 'true', remote: {url: x}}}]\n"), "remote: is not supported"},
		"static action":        {spec("    - static: {action: maybe}\n"), `"maybe" is not an action`},
		"static attestation":   {spec("    - static: {action: pass}\n      attestations: [{name: a, predicateType: vuln}]\n"), "looks at no signatures"},
		"noMatch":              {"apiVersion: bothy.dev/v1alpha1\nkind: ImageTrust\nmetadata: {name: x}\nspec: {noMatch: maybe}\n", `:4: spec.noMatch: "maybe"`},
		"denied digest":        {"apiVersion: bothy.dev/v1alpha1\nkind: ImageTrust\nmetadata: {name: x}\nspec: {deny: [{digest: latest}]}\n", "spec.deny[0].digest"},
		"format":               {spec(strings.Replace(key, "- key:", "- signatureFormat: pgp\n      key:", 1)), `"pgp" is not a format`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(c.text, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %q", err, c.want)
			}
		})
	}
}

func TestGlobs(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, c := range []struct {
		glob, name string
		match      bool
	}{
		{"**", "example.org/a:1", true},
		{"example.org/*", "example.org/a:1", true},
		{"example.org/*", "example.org/a/b:1", false},
		{"example.org/**", "example.org/a/b:1", true},
		{"example.org/a", "example.org/a:1", false},
		{"example.org/a:latest", "example.org/a", true},
		{"example.org/a", "exampleXorg/a", false},
		{"example.org/**", "evil.org/example.org/a:1", false},
		{"*", "busybox", true},
		{"*", "docker.io/library/busybox:1", true},
		{"docker.io/library/*", "busybox:1", true},
		{"index.docker.io/team/*", "team/app", true},
		{"*/*", "team/app:2", true},
		{"bothy.local/pause@" + digest, "bothy.local/pause:1", true},
		{"bothy.local/pause@sha256:" + strings.Repeat("0b", 32), "bothy.local/pause:1", false},
		{"**@" + digest, "x.org/y:1", true},
	} {
		p, err := compile(strings.Replace(spec("    - static: {action: pass}\n"), "**", c.glob, 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(p.Matching(c.name, digest)) == 1; got != c.match {
			t.Errorf("%s matches %s: %t", c.glob, c.name, got)
		}
	}
}

func TestRead(t *testing.T) {
	if files, err := policy.Read(fstest.MapFS{"trust/root.yaml": {}}); files != nil || err != nil {
		t.Errorf("%v, %v", files, err)
	}
	if files, err := policy.Read(fstest.MapFS{}); files != nil || err != nil {
		t.Errorf("%v, %v", files, err)
	}
	files, err := policy.Read(fstest.MapFS{
		policy.File: {Data: []byte("a")}, "trust/trusted_root.json": {Data: []byte("b")}, "trust/ci.trusted_root.json": {Data: []byte("c")}, "trust/x": {},
	})
	if err != nil || len(files) != 3 {
		t.Errorf("%v, %v", files, err)
	}
	other := policy.Files{policy.File: []byte("a"), "trust/trusted_root.json": []byte("b"), "trust/ci.trusted_root.json": []byte("d")}
	if files.Hash() == other.Hash() {
		t.Error("two policies have one hash")
	}
}

// TestLinkIsNoAbsence: a link that leads nowhere must not turn the policy off.
func TestLinkIsNoAbsence(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "trust"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, policy.File)); err != nil {
		t.Fatal(err)
	}
	if files, err := policy.Read(os.DirFS(dir)); err == nil || !strings.Contains(err.Error(), "not a plain file") {
		t.Errorf("%v, %v", files, err)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(spec("    - static: {action: pass}\n")))
	f.Add([]byte("apiVersion: bothy.dev/v1alpha1\nkind: ImageTrust\nmetadata: {name: x}\nspec: {noMatch: allow}\n---\n---\n"))
	f.Add([]byte(spec("    - key: {data: x}\n      attestations: [{name: a, predicateType: vuln, policy: {type: cel, data: 'true'}}]\n")))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := policy.Compile(policy.Files{policy.File: text})
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if p != nil {
			p.Matching("example.org/a:1", "")
		}
	})
}
