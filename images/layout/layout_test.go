package layout

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// writer makes layouts by hand, so that they can be wrong.
type writer struct {
	t     *testing.T
	dir   string
	index ocispec.Index
}

func newWriter(t *testing.T) *writer {
	return &writer{t: t, dir: t.TempDir(), index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}}
}

func (w *writer) blob(mediaType string, content []byte) ocispec.Descriptor {
	w.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	path := (&Layout{Dir: w.dir}).BlobPath(d.Digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *writer) json(mediaType string, v any) ocispec.Descriptor {
	w.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.blob(mediaType, data)
}

// image adds an image of one layer and returns its manifest and the layer.
func (w *writer) image(layer string) (manifest, layerDesc ocispec.Descriptor) {
	w.t.Helper()
	layerDesc = w.blob(ocispec.MediaTypeImageLayer, []byte(layer))
	config := w.json(ocispec.MediaTypeImageConfig, ocispec.Image{})
	return w.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layerDesc}}), layerDesc
}

func (w *writer) add(name string, d ocispec.Descriptor) {
	if name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	w.index.Manifests = append(w.index.Manifests, d)
}

func (w *writer) open() *Layout {
	w.t.Helper()
	data, err := json.Marshal(w.index)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "index.json"), data, 0o644); err != nil {
		w.t.Fatal(err)
	}
	l, err := Open(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func TestOpenListsNamedImages(t *testing.T) {
	w := newWriter(t)
	a, _ := w.image("a")
	b, _ := w.image("b")
	w.add("x/a:1", a)
	w.add("", a)
	w.add("x/b:1", b)
	l := w.open()
	var names []string
	for _, img := range l.First("x/b:1") {
		names = append(names, img.Name)
	}
	if got := strings.Join(names, " "); got != "x/b:1 x/a:1" {
		t.Errorf("images %q", got)
	}
	for _, img := range l.Images {
		if err := l.Verify(img, "linux", "amd64"); err != nil {
			t.Errorf("%s: %v", img.Name, err)
		}
	}
}

func TestOpenExplainsWhatIsWrong(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	for content, want := range map[string]string{
		"{": "is not an OCI index",
		`{"manifests":[{"digest":"sha256:beef","annotations":{"org.opencontainers.image.ref.name":"x/a:1"}}]}`:                                                                 "image x/a:1",
		`{"manifests":[{"digest":"sha256:` + strings.Repeat("a", 64) + `","annotations":{"org.opencontainers.image.ref.name":"x/a@sha256:` + strings.Repeat("b", 64) + `"}}]}`: "called by another",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("index %s: %v", content, err)
		}
	}
}

func TestVerifyNamesFileAndDigest(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"changed":   func(p string) error { return os.WriteFile(p, []byte("loyer"), 0o644) },
		"truncated": func(p string) error { return os.Truncate(p, 2) },
		"removed":   os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			manifest, layer := w.image("layer")
			w.add("x/a:1", manifest)
			l := w.open()
			path := l.BlobPath(layer.Digest)
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			err := l.Verify(l.Images[0], "linux", "amd64")
			var bad *BlobError
			if !errors.As(err, &bad) || bad.File != path || bad.Digest != layer.Digest {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), layer.Digest.String()) {
				t.Errorf("the message lacks file or digest: %v", err)
			}
		})
	}
}

func TestManifestOfThisPlatform(t *testing.T) {
	w := newWriter(t)
	amd, _ := w.image("amd64")
	arm, _ := w.image("arm64")
	amd.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	w.add("x/a:1", w.json(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{amd, arm}}))
	l := w.open()
	got, _, err := l.Manifest(l.Images[0].Descriptor, "linux", "arm64")
	if err != nil || got.Digest != arm.Digest {
		t.Errorf("manifest %s, %v", got.Digest, err)
	}
	_, _, err = l.Manifest(l.Images[0].Descriptor, "linux", "riscv64")
	if err == nil || !strings.Contains(err.Error(), "linux/amd64, linux/arm64") {
		t.Errorf("no manifest for this machine: %v", err)
	}
}

func TestArtifactsThatStandForThemselves(t *testing.T) {
	w := newWriter(t)
	system, _ := w.image("an operating system")
	system.ArtifactType = "application/vnd.test.system"
	referrer := system
	referrer.ArtifactType = "application/vnd.test.signature"
	signature, _ := w.image("a signature")
	app, _ := w.image("app")
	w.add("x/os@"+system.Digest.String(), system)
	w.add("x/os:sha256-"+system.Digest.Encoded()+".sig", signature)
	w.add("", referrer)
	w.add("x/app:1", app)
	l := w.open()
	if got := l.Standalone(); len(got) != 1 || got[0].Descriptor.Digest != system.Digest || len(l.Artifacts) != 3 || len(l.Images) != 1 {
		t.Errorf("%+v", l)
	}
}
