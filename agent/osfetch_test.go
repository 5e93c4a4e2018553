package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/os/image"
)

// osLayout is an OCI layout with an image of an operating system, as `bothy os build` makes it.
func osLayout(t *testing.T, flavour string, configType string) (dir string, ref string) {
	t.Helper()
	dir = t.TempDir()
	blobs := bundle.Blobs{Dir: dir}
	put := func(kind string, data []byte) ocispec.Descriptor {
		d, err := blobs.Put(kind, data)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config:      put(configType, []byte("{}")),
		Layers:      []ocispec.Descriptor{put(string(image.MediaTypeBootFile), []byte("boot file")), put(string(image.MediaTypeRoot), bytes.Repeat([]byte{'r'}, 10000))},
		Annotations: map[string]string{image.AnnotationFlavour: flavour},
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := put(ocispec.MediaTypeImageManifest, text)
	d.Annotations = map[string]string{ocispec.AnnotationRefName: "devel"}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ocispec.ImageIndexFile), index, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, "registry.example.org/bothy/os@" + d.Digest.String()
}

// open reads an image from a layout the way that a machine without a network does.
func readOS(t *testing.T, dir, ref string) (*osArtifact, error) {
	t.Helper()
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	spec := v1alpha1.OSSpec{Image: ref}
	from := byDigest{bundle.Layout(l), l}
	desc, err := from.Resolve(context.Background(), ref)
	if err != nil {
		return nil, err
	}
	if _, err := readOSManifest(context.Background(), from, trimTag("registry.example.org/bothy/os"), desc); err != nil {
		return nil, err
	}
	to := filepath.Join(t.TempDir(), "staging")
	if _, err := bundle.Create(context.Background(), bundle.Options{
		To: to, Images: []string{ref}, Sources: []bundle.Source{from}, Platforms: []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}},
	}); err != nil {
		return nil, err
	}
	staged, err := layout.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	return openOS(staged, spec)
}

func TestAnImageComesFromALayoutByItsDigest(t *testing.T) {
	dir, ref := osLayout(t, "vm", string(image.MediaTypeConfig))
	a, err := readOS(t, dir, ref)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if string(a.image.BootFile) != "boot file" || a.image.RootSize != 10000 {
		t.Errorf("%+v", a.image)
	}
	if _, err := readOS(t, dir, strings.Replace(ref, "sha256:", "sha256:00", 1)[:len(ref)]); err == nil {
		t.Error("an image that is not there was found")
	}
	// One that is damaged is not used.
	boot := digest.FromString("boot file")
	file := filepath.Join(dir, "blobs", "sha256", boot.Encoded())
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("boot fiel"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readOS(t, dir, ref); err == nil || !strings.Contains(err.Error(), boot.String()) {
		t.Errorf("a damaged image was used: %v", err)
	}
}

func TestWhatIsNoOperatingSystemIsRefused(t *testing.T) {
	dir, ref := osLayout(t, "vm", ocispec.MediaTypeImageConfig)
	if _, err := readOS(t, dir, ref); err == nil || !strings.Contains(err.Error(), "no operating system of bothy's") {
		t.Errorf("%v", err)
	}
}

func TestTrimTag(t *testing.T) {
	for name, want := range map[string]string{
		"registry.example.org:5000/os:v1": "registry.example.org:5000/os", "registry.example.org:5000/os": "registry.example.org:5000/os", "registry.example.org/a/os": "registry.example.org/a/os",
	} {
		if got := trimTag(name); got != want {
			t.Errorf("%s becomes %s", name, got)
		}
	}
}
