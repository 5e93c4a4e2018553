package build

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/internal/cosign"
)

// keyFiles writes a key pair and returns the private key's file and the public key.
func keyFiles(t *testing.T, key any, public any) (file string, publicPEM []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKIXPublicKey(public); err != nil {
		t.Fatal(err)
	}
	return file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func sign(t *testing.T, dir, key string, names ...string) []Signed {
	t.Helper()
	signer, err := ReadKey(key, func() ([]byte, error) { return nil, ErrNoPassword })
	if err != nil {
		t.Fatal(err)
	}
	out, err := Sign(dir, signer, names)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func believed(t *testing.T, dir, digest string, public []byte) error {
	t.Helper()
	p, err := cosign.ByKeys(map[string][]byte{"key": public})
	if err != nil {
		t.Fatal(err)
	}
	found, err := signatures.NewLayouts([]string{dir}).Get(digest)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cosign.Check(found, digest, p)
	return err
}

func TestSignedLayoutIsBelieved(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	results := build(t, dir, image(t, "registry.example.org:5000/team/a:1"), image(t, "x/b:1"))
	ecKey, ecPublic := keyFiles(t, ec, ec.Public())
	if got := sign(t, dir, ecKey, "x/b:1"); len(got) != 1 || !got[0].New || got[0].Name != "x/b:1" {
		t.Fatalf("%+v", got)
	}
	if err := believed(t, dir, results[0].Digest, ecPublic); err == nil && results[0].Digest != results[1].Digest {
		t.Error("an image that was not to be signed is")
	}
	for what, key := range map[string][2]any{"ECDSA": {ec, ec.Public()}, "Ed25519": {ed, ed.Public()}, "RSA": {old, old.Public()}} {
		file, public := keyFiles(t, key[0], key[1])
		sign(t, dir, file)
		for _, r := range results {
			if err := believed(t, dir, r.Digest, public); err != nil {
				t.Errorf("%s: %s: %v", what, r.Name, err)
			}
		}
		before, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sign(t, dir, file) {
			if s.New {
				t.Errorf("%s: %s is signed again", what, s.Name)
			}
		}
		if after, err := os.ReadFile(filepath.Join(dir, "index.json")); err != nil || string(after) != string(before) {
			t.Errorf("%s: signing again changed the layout: %v", what, err)
		}
	}
	// All three stay, and go only when nothing is left that they are about.
	if err := believed(t, dir, results[1].Digest, ecPublic); err != nil {
		t.Error(err)
	}
	if list, err := List(dir); err != nil || len(list) != 2 || list[0].Problem != "" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := Build(t.Context(), Options{LayoutDir: dir, Images: []Image{image(t, "x/b:1")}, Prune: true}); err != nil {
		t.Fatal(err)
	}
	if err := believed(t, dir, results[1].Digest, ecPublic); err != nil {
		t.Errorf("pruning took the signature of what stays: %v", err)
	}
	for _, wrong := range []struct {
		dir   string
		names []string
		want  string
	}{{dir, []string{"x/c:1"}, "has no image x/c:1"}, {t.TempDir(), nil, "has no image to sign"}} {
		signer, err := ReadKey(ecKey, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Sign(wrong.dir, signer, wrong.names); err == nil || !strings.Contains(err.Error(), wrong.want) {
			t.Errorf("%v, want %q", err, wrong.want)
		}
	}
	if _, err := ReadKey(filepath.Join(dir, "index.json"), nil); err == nil || !strings.Contains(err.Error(), "index.json") {
		t.Errorf("what is no key: %v", err)
	}
}

// TestCosignVerifiesWhatIsSignedHere has the cosign program make the key and verify the signature, from a registry that
// the layout was copied to.
func TestCosignVerifiesWhatIsSignedHere(t *testing.T) {
	program, err := filepath.Abs("../../build/tools/cosign")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("needs build/tools/cosign: make build/tools/cosign")
	}
	home := t.TempDir()
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=sesame", "HOME="+home)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("generate-key-pair"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key := filepath.Join(home, "cosign.key")
	if _, err := ReadKey(key, func() ([]byte, error) { return nil, ErrNoPassword }); !errors.Is(err, ErrNoPassword) {
		t.Errorf("without the password: %v", err)
	}
	signer, err := ReadKey(key, func() ([]byte, error) { return []byte("sesame"), nil })
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	build(t, dir, image(t, host+"/team/signed:1"), Image{Name: host + "/team/other:1", Source: Source{RootFS: rootfs(t)}, Entrypoint: []string{"/bin/alias"}})
	if _, err := Sign(dir, signer, []string{host + "/team/signed:1"}); err != nil {
		t.Fatal(err)
	}
	index, err := gcrlayout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]v1.Hash{}
	for _, d := range m.Manifests {
		ref, err := name.ParseReference(d.Annotations[ocispec.AnnotationRefName])
		if err != nil {
			t.Fatal(err)
		}
		img, err := index.Image(d.Digest)
		if err == nil {
			err = remote.Write(ref, img)
		}
		if err != nil {
			t.Fatal(err)
		}
		digests[ref.Name()] = d.Digest
	}
	verify := func(image string) (string, error) {
		return run("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-insecure-registry", "--new-bundle-format=false", image)
	}
	if out, err := verify(host + "/team/signed:1"); err != nil || !strings.Contains(out, digests[host+"/team/signed:1"].String()) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := verify(host + "/team/other:1"); err == nil {
		t.Errorf("what was not signed is verified:\n%s", out)
	}
}
