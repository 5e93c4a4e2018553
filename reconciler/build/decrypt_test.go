package build_test

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/build/sops"
)

func fixture(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("sops", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func decryptor(t testing.TB) build.Decryptor {
	t.Helper()
	k, err := sops.New(map[string][]byte{"identity.agekey": []byte(fixture(t, "keys/test-only.agekey"))})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func field(t *testing.T, o *unstructured.Unstructured, path ...string) string {
	t.Helper()
	text, _, err := unstructured.NestedString(o.Object, path...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestDecrypts(t *testing.T) {
	secret, documents := fixture(t, "encrypted/encrypted-regex-all.yaml"), fixture(t, "encrypted/age-documents.yaml")
	env, ini, text, config := fixture(t, "encrypted/age-all.env"), fixture(t, "encrypted/age-all.ini"), fixture(t, "encrypted/age-all.txt"), fixture(t, "encrypted/age-all.json")
	plainOf := func(name string) string { return fixture(t, "decrypted/"+name) }
	for name, c := range map[string]struct {
		files files
		want  func(*testing.T, []*unstructured.Unstructured)
	}{
		"a plain manifest": {files{"a/s.yaml": secret}, func(t *testing.T, o []*unstructured.Unstructured) {
			if got := field(t, o[0], "stringData", "password"); got != "s3cr3t-pass" || o[0].Object["sops"] != nil {
				t.Errorf("password %q", got)
			}
		}},
		"several documents": {files{"a/s.yaml": configMap + "---\n" + documents + "\n---\n" + secret}, func(t *testing.T, o []*unstructured.Unstructured) {
			if got := names(o); got != "ConfigMap /a, Secret /one, Secret /two, Secret web/all" || field(t, o[2], "stringData", "b") != "beta-two" {
				t.Errorf("%s", got)
			}
		}},
		"by way of kustomize, which changes the object": {files{
			"a/kustomization.yaml": "resources: [s.yaml]\nnamespace: other\nnamePrefix: p-\nlabels: [{pairs: {x: z}}]\npatches:\n- patch: |-\n    {apiVersion: v1, kind: Secret, metadata: {name: all, namespace: web}, stringData: {added: plain}}\n",
			"a/s.yaml":             secret,
		}, func(t *testing.T, o []*unstructured.Unstructured) {
			if got := names(o); got != "Secret other/p-all" || field(t, o[0], "stringData", "password") != "s3cr3t-pass" || field(t, o[0], "stringData", "added") != "plain" {
				t.Errorf("%s: %v", got, o[0].Object)
			}
		}},
		"files of a generator of Secrets": {files{
			"a/kustomization.yaml": "generatorOptions: {disableNameSuffixHash: true}\nsecretGenerator:\n- name: g\n  files: [all.yaml, password=all.txt, config.json, .dockerconfigjson=config.json, all.ini]\n- name: e\n  envs: [vars.env]\nconfigMapGenerator:\n- name: c\n  files: [other.yaml]\n",
			"a/all.yaml":           secret, "a/all.txt": text, "a/config.json": config, "a/all.ini": ini, "a/vars.env": env, "a/other.yaml": secret,
		}, func(t *testing.T, o []*unstructured.Unstructured) {
			if got := names(o); got != "ConfigMap /c, Secret /g, Secret /e" {
				t.Fatal(got)
			}
			// What a ConfigMap is made from stays encrypted, as in Flux.
			if field(t, o[0], "data", "other.yaml") != secret {
				t.Error("the file of a ConfigMap was decrypted")
			}
			for key, want := range map[string]string{"all.yaml": fixture(t, "decrypted/encrypted-regex-all.yaml"), "password": plainOf("all.txt"), "config.json": plainOf("all.json"), ".dockerconfigjson": plainOf("all.json"), "all.ini": plainOf("all.ini")} {
				if got := strings.ReplaceAll(field(t, o[1], "data", key), "\n", ""); got != encoded(want) {
					t.Errorf("%s: %s", key, got)
				}
			}
			if got := field(t, o[2], "data", "PASSWORD"); got != encoded("p=w#d;1") {
				t.Errorf("PASSWORD: %s", got)
			}
		}},
		"a patch": {files{
			"a/kustomization.yaml": "resources: [s.yaml]\npatches: [{path: patch.yaml}]\n",
			"a/s.yaml":             "apiVersion: v1\nkind: Secret\nmetadata: {name: one}\nstringData: {x: y}\n",
			"a/patch.yaml":         strings.SplitN(strings.ReplaceAll(documents, "\n---\n", "\n--- #\n"), "--- #", 2)[0],
		}, nil},
		"entries of a Secret": {files{"a/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  a.yaml: " + encoded(secret) + "\n  raw: " + encoded(text) + "\n  c.json: " + encoded(config) + "\n  .env: " + encoded(env) + "\n  plain: " + encoded("plain") + "\n"}, func(t *testing.T, o []*unstructured.Unstructured) {
			for key, want := range map[string]string{"a.yaml": fixture(t, "decrypted/encrypted-regex-all.yaml"), "raw": plainOf("all.txt"), "c.json": plainOf("all.json"), ".env": plainOf("all.env"), "plain": "plain"} {
				if got := field(t, o[0], "data", key); got != encoded(want) {
					t.Errorf("%s: %s", key, got)
				}
			}
		}},
		"not what is marked": {files{"a/s.yaml": strings.Replace(secret, "    namespace: web", "    annotations: {kustomize.toolkit.fluxcd.io/decrypt: disabled}\n    namespace: web", 1)}, func(t *testing.T, o []*unstructured.Unstructured) {
			if !strings.HasPrefix(field(t, o[0], "stringData", "password"), "ENC[") || o[0].Object["sops"] == nil {
				t.Errorf("%v", o[0].Object)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := build.Build(context.Background(), c.files.fs(), build.Options{Dir: "a", Decrypt: decryptor(t), Kustomization: spec(func(*kustomizev1.KustomizationSpec) {})})
			if c.want == nil {
				// Half of a file that was encrypted as one.
				if err == nil || !strings.Contains(err.Error(), "a/patch.yaml: cannot be decrypted: it was changed") {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.want(t, result.Objects)
		})
	}
}

func TestDecryptsPatch(t *testing.T) {
	in := files{
		"kustomization.yaml": "resources: [s.yaml]\npatches: [{path: patch.yaml}]\n",
		"s.yaml":             "apiVersion: v1\nkind: Secret\nmetadata: {name: all, namespace: web}\nstringData: {x: y}\n",
		"patch.yaml":         fixture(t, "encrypted/encrypted-regex-all.yaml"),
	}
	result, err := build.Build(context.Background(), in.fs(), build.Options{Decrypt: decryptor(t)})
	if err != nil {
		t.Fatal(err)
	}
	if o := result.Objects[0]; field(t, o, "stringData", "password") != "s3cr3t-pass" || field(t, o, "stringData", "x") != "y" {
		t.Errorf("%v", o.Object)
	}
}

func TestEncryptedWithoutKey(t *testing.T) {
	secret := fixture(t, "encrypted/encrypted-regex-all.yaml")
	changed := strings.Replace(secret, "name: all", "name: other", 1)
	custom := "apiVersion: isindir.github.com/v1alpha3\nkind: SopsSecret\nmetadata: {name: s}\nsops: {mac: 'ENC[x]'}\n"
	flux := spec(func(*kustomizev1.KustomizationSpec) {})
	for name, c := range map[string]struct {
		text    string
		options build.Options
		want    string
	}{
		"Flux":                    {secret, build.Options{Kustomization: flux}, "s.yaml: Secret web/all: is encrypted with SOPS and there is no key to decrypt it with; set spec.decryption"},
		"site":                    {secret, build.Options{}, "decryption.keysDirectory of the boot configuration"},
		"changed":                 {changed, build.Options{Decrypt: decryptor(t)}, "s.yaml: cannot be decrypted: it was changed after it was encrypted"},
		"custom kind":             {custom, build.Options{}, ""},
		"for others":              {fixture(t, "encrypted/pgp-all.yaml"), build.Options{Decrypt: decryptor(t)}, "s.yaml: cannot be decrypted: it is encrypted for (OpenPGP "},
		"secret in a broken file": {secret, build.Options{Decrypt: broken{}}, "s.yaml: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build.Build(context.Background(), files{"s.yaml": c.text}.fs(), c.options)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// broken decrypts to what cannot be built, with a secret in every place that an
// error might quote.
type broken struct{}

func (broken) Decrypt([]byte, sops.Format) ([]byte, error) {
	return []byte("apiVersion: v1\nkind: Secret\nstringData: {a: *hunter2-hunter2, hunter2-hunter2: hunter2-hunter2}\n"), nil
}

// TestErrorsOfKustomizeTellNoSecret: kustomize quotes what it fails on.
func TestErrorsOfKustomizeTellNoSecret(t *testing.T) {
	in := files{"kustomization.yaml": "resources: [s.yaml]\n", "s.yaml": fixture(t, "encrypted/encrypted-regex-all.yaml")}
	for _, d := range []build.Decryptor{broken{}, nameless{}} {
		_, err := build.Build(context.Background(), in.fs(), build.Options{Decrypt: d})
		if err == nil {
			t.Fatal("built")
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}

type nameless struct{}

func (nameless) Decrypt([]byte, sops.Format) ([]byte, error) {
	return []byte("stringData: {a: hunter2-hunter2}\n"), nil
}
