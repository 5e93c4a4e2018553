package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/internal/imagetest"
	"github.com/bothy-os/bothy/images/layer"
)

func TestMain(m *testing.M) {
	// Small bounds, so that a test can exceed them.
	GuardLayers(layer.Limits{Bytes: 64 << 20, Free: 1 << 20})
	if args := strings.Fields(os.Getenv(importHelper)); len(args) == 2 {
		if err := importOnce(args[0], args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// harmful adds an image whose only layer is the given archive.
func harmful(t *testing.T, l *imagetest.Layout, name string, plain []byte) {
	t.Helper()
	config := l.JSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}},
	})
	l.Name(name, l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{l.Blob(ocispec.MediaTypeImageLayerGzip, imagetest.Gzip(t, plain))},
	}))
}

// Each image is refused for its own reason and nothing of it can be run, while
// its twin without the flaw is imported.
func TestAttacksOnTheImportAreRefused(t *testing.T) {
	platform := func(arch string) *ocispec.Platform { return &ocispec.Platform{OS: "linux", Architecture: arch} }
	for what, attack := range map[string]struct {
		make func(t *testing.T, l *imagetest.Layout, name string)
		want string
	}{
		"corrupted blob": {func(t *testing.T, l *imagetest.Layout, name string) {
			image := l.Image(imagetest.Noise(7, 10_000))
			l.Name(name, image)
			file, _ := blobOf(t, l, image)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "content hashes to"},
		"truncated blob": {func(t *testing.T, l *imagetest.Layout, name string) {
			image := l.Image(imagetest.Noise(7, 10_000))
			l.Name(name, image)
			file, _ := blobOf(t, l, image)
			if err := os.Truncate(file, 500); err != nil {
				t.Fatal(err)
			}
		}, "has 500 bytes instead of"},
		"decompression bomb": {func(t *testing.T, l *imagetest.Layout, name string) {
			harmful(t, l, name, imagetest.Tar(t, &tar.Header{Name: "zeros", Mode: 0o644}, make([]byte, 32<<20)))
		}, "made to fill the disk"},
		"layer path escaping": {func(t *testing.T, l *imagetest.Layout, name string) {
			harmful(t, l, name, imagetest.Tar(t, &tar.Header{Name: "../../../../etc/bothy-was-here", Mode: 0o644}, []byte("x")))
		}, "leads out of the image"},
		"platform manifest swapped": {func(t *testing.T, l *imagetest.Layout, name string) {
			other := l.ImageFor("s390x", []byte("another image"))
			other.Platform = platform(runtime.GOARCH)
			l.Name(name, l.JSON(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other}}))
		}, "the image is for linux/s390x"},
		"content of a platform manifest swapped": {func(t *testing.T, l *imagetest.Layout, name string) {
			good, evil := l.Image([]byte("good")), l.Image([]byte("evil"))
			good.Platform = platform(runtime.GOARCH)
			l.Name(name, l.JSON(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{good}}))
			data, err := os.ReadFile(l.Path(evil.Digest))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(l.Path(good.Digest), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "content hashes to"},
		"manifest that is a list too": {func(t *testing.T, l *imagetest.Layout, name string) {
			image := l.Image([]byte("x"))
			var fields map[string]any
			data, err := os.ReadFile(l.Path(image.Digest))
			if err == nil {
				err = json.NewDecoder(bytes.NewReader(data)).Decode(&fields)
			}
			if err != nil {
				t.Fatal(err)
			}
			fields["manifests"] = []any{}
			l.Name(name, l.JSON(ocispec.MediaTypeImageManifest, fields))
		}, "an image and a list of images at once"},
		"digest of the layer's content wrong": {func(t *testing.T, l *imagetest.Layout, name string) {
			config := l.JSON(ocispec.MediaTypeImageConfig, ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("something else")}}})
			plain := imagetest.Tar(t, &tar.Header{Name: "a", Mode: 0o644}, []byte("b"))
			l.Name(name, l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
				MediaType: ocispec.MediaTypeImageManifest, Config: config,
				Layers: []ocispec.Descriptor{l.Blob(ocispec.MediaTypeImageLayerGzip, imagetest.Gzip(t, plain))},
			}))
		}, "wrong diff id"},
	} {
		t.Run(what, func(t *testing.T) {
			c := newContainerd(t)
			l := imagetest.New(t)
			attack.make(t, l, "x/attack:1")
			twin := l.Image(imagetest.Noise(8, 10_000))
			twin.Platform = platform(runtime.GOARCH)
			l.Name("x/twin:1", l.JSON(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{twin}}))
			l.Save()
			st, err := c.importAll(l.Dir)
			if err == nil || !strings.Contains(err.Error(), attack.want) || !strings.Contains(err.Error(), "x/attack:1") {
				t.Errorf("the attack: %v", err)
			}
			if got := c.names(); got != "x/twin:1" || st.Imported != 1 {
				t.Errorf("images %q, %+v", got, st)
			}
		})
	}
	if _, err := os.Stat("/etc/bothy-was-here"); err == nil {
		t.Error("a layer wrote outside of its image")
	}
}

// blobOf returns the file of an image's first layer.
func blobOf(t *testing.T, l *imagetest.Layout, image ocispec.Descriptor) (file string, d digest.Digest) {
	t.Helper()
	data, err := os.ReadFile(l.Path(image.Digest))
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return l.Path(m.Layers[0].Digest), m.Layers[0].Digest
}
