package main

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A client of registries finds the images of a layout by tag and by digest, with all they consist of, and no others.
func TestRegistryServesTheLayout(t *testing.T) {
	image, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	ref := layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: suiteRegistry + "/e2e-test-images/agnhost:2.0"})
	if err := l.AppendImage(image, ref); err != nil {
		t.Fatal(err)
	}
	r, err := openRegistry(dir)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"/e2e-test-images/agnhost:2.0", "/e2e-test-images/agnhost@" + digest.String()} {
		got, err := remote.Image(mustParse(t, host+text))
		if err != nil {
			t.Fatal(err)
		}
		if d, err := got.Digest(); err != nil || d != digest {
			t.Errorf("%s is %s, %v", text, d, err)
		}
		layers, err := got.Layers()
		if err != nil || len(layers) != 2 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		for _, layer := range layers {
			readAll(t, layer)
		}
	}
	for _, text := range []string{"/e2e-test-images/agnhost:1.0", "/agnhost:2.0"} {
		if _, err := remote.Image(mustParse(t, host+text)); err == nil {
			t.Errorf("there is %s", text)
		}
	}
}

// readAll fails the test if what is read is not what the digest says.
func readAll(t *testing.T, layer v1.Layer) {
	t.Helper()
	r, err := layer.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
}

func mustParse(t *testing.T, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(text, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}
