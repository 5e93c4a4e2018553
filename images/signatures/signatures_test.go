package signatures_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	godigest "github.com/opencontainers/go-digest"

	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
)

const refName = "org.opencontainers.image.ref.name"

var digest = "sha256:" + strings.Repeat("11", 32)

func byKey(t testing.TB, k *cosigntest.Key) *cosign.Policy {
	t.Helper()
	p, err := cosign.ByKeys(map[string][]byte{"k": k.PEM(t)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := signatures.NewStore(dir)
	if got, err := s.Get(digest); got != nil || err != nil {
		t.Fatalf("%v, %v", got, err)
	}
	a := &cosign.Signatures{Digest: digest, Bundles: []cosign.Attached{{Name: "a", Content: []byte("1")}}}
	b := &cosign.Signatures{Digest: digest, Bundles: []cosign.Attached{{Name: "a", Content: []byte("1")}, {Name: "b", Content: []byte("2")}}}
	for _, more := range []*cosign.Signatures{a, b, b, {Digest: digest}, nil} {
		if err := s.Add(more); err != nil {
			t.Fatal(err)
		}
	}
	got, err := signatures.NewStore(dir).Get(digest)
	if err != nil || len(got.Bundles) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "latest", "sha256:../../x", "sha512:" + strings.Repeat("1", 128)} {
		if _, err := s.Get(bad); err == nil {
			t.Errorf("%q taken for a digest", bad)
		}
	}
	file := filepath.Join(dir, "sha256", strings.TrimPrefix(digest, "sha256:")+".json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(digest); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("%v", err)
	}
	if err := s.Add(a); err != nil {
		t.Errorf("a damaged file cannot be replaced: %v", err)
	}
}

// signedLayout is a layout with an image, its signature behind a tag, and one
// that refers to it.
func signedLayout(t *testing.T, k *cosigntest.Key) (dir, digest string) {
	t.Helper()
	dir = t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	must(t, err)
	image, err := random.Image(64, 1)
	must(t, err)
	must(t, path.AppendImage(image, layout.WithAnnotations(map[string]string{refName: "example.org/app:1"})))
	d, err := image.Digest()
	must(t, err)
	payload := cosigntest.Payload(d.String())
	signature, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer: static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"), MediaType: "application/vnd.dev.cosign.simplesigning.v1+json",
		Annotations: k.Annotations(t, payload),
	})
	must(t, err)
	must(t, path.AppendImage(signature, layout.WithAnnotations(map[string]string{refName: "example.org/app:sha256-" + d.Hex + ".sig"})))
	bundle, err := mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(k.Bundle(t, d.String(), cosigntest.SignPredicate), cosigntest.BundleType), MediaType: cosigntest.BundleType})
	must(t, err)
	size, err := image.Size()
	must(t, err)
	referrer, ok := mutate.Subject(bundle, v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: d, Size: size}).(v1.Image)
	if !ok {
		t.Fatal("a referrer is no image")
	}
	must(t, path.AppendImage(referrer))
	return dir, d.String()
}

func TestLayout(t *testing.T) {
	k := cosigntest.NewKey(t)
	dir, digest := signedLayout(t, k)
	found, err := signatures.NewLayouts([]string{dir}).Get(digest)
	if err != nil || len(found.Payloads) != 1 || len(found.Bundles) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	for _, only := range []*cosign.Signatures{{Payloads: found.Payloads}, {Bundles: found.Bundles}} {
		if _, err := cosign.Check(only, digest, byKey(t, k)); err != nil {
			t.Error(err)
		}
	}
	if none, err := signatures.NewLayouts([]string{dir}).Get("sha256:" + strings.Repeat("2", 64)); err != nil || !none.Empty() {
		t.Errorf("%+v, %v", none, err)
	}
	if none, err := signatures.NewLayouts([]string{t.TempDir()}).Get(digest); err != nil || !none.Empty() {
		t.Errorf("%+v, %v", none, err)
	}
}

// TestStrippedSignature: without its entry in the index a signature is not
// there, whatever blobs are.
func TestStrippedSignature(t *testing.T) {
	k := cosigntest.NewKey(t)
	dir, digest := signedLayout(t, k)
	file := filepath.Join(dir, "index.json")
	text, err := os.ReadFile(file)
	must(t, err)
	var index v1.IndexManifest
	must(t, json.Unmarshal(text, &index))
	index.Manifests = index.Manifests[:1]
	text, err = json.Marshal(index)
	must(t, err)
	must(t, os.WriteFile(file, text, 0o600))
	found, err := signatures.NewLayouts([]string{dir}).Get(digest)
	if err != nil || !found.Empty() {
		t.Fatalf("%+v, %v", found, err)
	}
	if _, err := cosign.Check(found, digest, byKey(t, k)); err == nil {
		t.Error("an image without signatures is believed")
	}
}

// TestLayoutIsReadAgain: a signature that was carried here counts at once.
func TestLayoutIsReadAgain(t *testing.T) {
	k := cosigntest.NewKey(t)
	dir, digest := signedLayout(t, k)
	away := filepath.Join(t.TempDir(), "layout")
	l := signatures.NewLayouts([]string{away})
	if found, err := l.Get(digest); err != nil || !found.Empty() {
		t.Fatalf("%+v, %v", found, err)
	}
	must(t, os.Rename(dir, away))
	if found, err := l.Get(digest); err != nil || found.Empty() {
		t.Fatalf("%+v, %v", found, err)
	}
	must(t, os.WriteFile(filepath.Join(away, "index.json"), []byte(`{"schemaVersion":2,"manifests":[]}`), 0o600))
	if found, err := l.Get(digest); err != nil || !found.Empty() {
		t.Fatalf("%+v, %v", found, err)
	}
}

func TestNamesOfSignatures(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for name, want := range map[string]bool{
		"example.org/app:sha256-" + hex + ".sig": true, "sha256-" + hex + ".att": true, "sha256-" + hex: true,
		"example.org/app:1": false, "example.org/sha256-" + hex + ":1": false, "": false,
	} {
		if got := signatures.IsSignature(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestRealCosign signs with the cosign program, in each of its formats, and
// verifies what it left in a registry and in a layout that it saved.
func TestRealCosign(t *testing.T) {
	program, err := filepath.Abs("../../build/tools/cosign")
	must(t, err)
	if _, err := os.Stat(program); err != nil {
		t.Skip("needs build/tools/cosign: make build/tools/cosign")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=", "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run("generate-key-pair")
	public, err := os.ReadFile(filepath.Join(dir, "cosign.pub"))
	must(t, err)
	believed, err := cosign.ByKeys(map[string][]byte{"cosign.pub": public})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "predicate.json"), []byte(`{"tested":true}`), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}`), 0o600))
	for format, flags := range map[string][]string{
		"legacy": {"--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"},
		"bundle": {"--new-bundle-format=true", "--signing-config", "config.json"},
	} {
		t.Run(format, func(t *testing.T) {
			r := cosigntest.Repository(t, "team/"+format, true)
			image, err := random.Image(64, 1)
			must(t, err)
			d := cosigntest.Push(t, r.Tag("1"), image)
			run(append([]string{"sign", "--key", "cosign.key", "--yes", "--allow-insecure-registry", r.Digest(d).Name()}, flags...)...)
			run(append([]string{"attest", "--key", "cosign.key", "--yes", "--allow-insecure-registry", "--type", "https://example.org/tested", "--predicate", "predicate.json", r.Digest(d).Name()}, flags...)...)

			found, err := cosign.Collect(t.Context(), cosign.Remote(r), d)
			must(t, err)
			believes(t, found, d, believed)
			other := cosigntest.Push(t, r.Tag("2"), mustImage(t))
			if _, err := cosign.Check(found, other, believed); err == nil {
				t.Error("a signature of one image is believed for another")
			}
			if format == "legacy" {
				run("save", "--dir", filepath.Join(dir, "saved"), "--allow-insecure-registry", r.Digest(d).Name())
				found, err := signatures.NewLayouts([]string{filepath.Join(dir, "saved")}).Get(d)
				must(t, err)
				believes(t, found, d, believed)
			}
		})
	}
}

// believes checks a signature and the attestation that it was tested.
func believes(t *testing.T, found *cosign.Signatures, digest string, p *cosign.Policy) {
	t.Helper()
	if _, err := cosign.Check(found, digest, p); err != nil {
		t.Error(err)
	}
	var statement string
	_, err := cosign.CheckStatement(found, digest, p, "https://example.org/tested", func(s []byte) error {
		statement = string(s)
		return nil
	})
	if err != nil || !strings.Contains(statement, "tested") {
		t.Errorf("%v, statement %s", err, statement)
	}
}

func mustImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(64, 1)
	must(t, err)
	return image
}

// FuzzLayout: nothing in a layout panics, and what is found is what is in a blob with the digest that was asked for. In
// the index, MANIFEST and LENGTH stand for the manifest, in that PAYLOAD and SIZE for what is signed.
func FuzzLayout(f *testing.F) {
	tag := "x:sha256-" + strings.Repeat("11", 32)
	index := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"MANIFEST","size":LENGTH,"annotations":{"` + refName + `":"` + tag + `.sig"}}]}`
	manifest := `{"schemaVersion":2,"config":{"digest":"PAYLOAD","size":SIZE},"layers":[{"mediaType":"KIND","digest":"PAYLOAD","size":SIZE,"annotations":{"dev.cosignproject.cosign/signature":"eA=="}}]`
	of := func(kind, more string) []byte { return []byte(strings.Replace(manifest, "KIND", kind, 1) + more + "}") }
	f.Add([]byte(index), of("application/vnd.dev.cosign.simplesigning.v1+json", ""), []byte(`{"critical":{}}`))
	f.Add([]byte(strings.Replace(index, ".sig", ".att", 1)), of("application/vnd.dsse.envelope.v1+json", ""), []byte(`{"payload":"e30="}`))
	f.Add([]byte(strings.Replace(index, tag+".sig", "", 1)), of(cosigntest.BundleType, `,"artifactType":"`+cosigntest.BundleType+`","subject":{"digest":"`+digest+`","size":2}`), []byte(`{"dsseEnvelope":{}}`))
	f.Fuzz(func(t *testing.T, index, manifest, payload []byte) {
		dir := t.TempDir()
		blobs := filepath.Join(dir, "blobs", "sha256")
		must(t, os.MkdirAll(blobs, 0o700))
		put := func(in, data []byte, name, size string) []byte {
			d := godigest.FromBytes(data)
			must(t, os.WriteFile(filepath.Join(blobs, d.Encoded()), data, 0o600))
			return bytes.ReplaceAll(bytes.ReplaceAll(in, []byte(name), []byte(d.String())), []byte(size), []byte(strconv.Itoa(len(data))))
		}
		manifest = put(manifest, payload, "PAYLOAD", "SIZE")
		index = put(index, manifest, "MANIFEST", "LENGTH")
		must(t, os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600))
		found, err := signatures.NewLayouts([]string{dir}).Get(digest)
		if found == nil {
			t.Fatalf("no answer: %v", err)
		}
		for _, a := range slices.Concat(found.Payloads, found.Envelopes, found.Bundles) {
			if !bytes.Equal(a.Content, payload) && !bytes.Equal(a.Content, manifest) {
				t.Fatalf("%q is in no blob", a.Content)
			}
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
