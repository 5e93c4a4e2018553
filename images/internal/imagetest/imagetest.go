package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layout is an OCI layout that is made by hand, so that it can be wrong.
type Layout struct {
	t     testing.TB
	Dir   string
	Index ocispec.Index
}

// New makes an empty layout.
func New(t testing.TB) *Layout {
	t.Helper()
	l := &Layout{t: t, Dir: t.TempDir(), Index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}}
	l.Write(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

// Write writes a file of the layout.
func (l *Layout) Write(name string, data []byte) {
	l.t.Helper()
	path := filepath.Join(l.Dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// Path is where a blob is.
func (l *Layout) Path(d digest.Digest) string {
	return filepath.Join(l.Dir, ocispec.ImageBlobsDir, "sha256", d.Encoded())
}

// Blob adds a blob.
func (l *Layout) Blob(mediaType string, data []byte) ocispec.Descriptor {
	l.t.Helper()
	d := digest.FromBytes(data)
	l.Write(filepath.Join(ocispec.ImageBlobsDir, "sha256", d.Encoded()), data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// JSON adds a document.
func (l *Layout) JSON(mediaType string, v any) ocispec.Descriptor {
	l.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.Blob(mediaType, data)
}

// Image adds an image for this machine whose layers have the given content as
// file /data, without a name.
func (l *Layout) Image(layers ...[]byte) ocispec.Descriptor {
	return l.ImageFor(runtime.GOARCH, layers...)
}

// ImageFor is Image for another architecture.
func (l *Layout) ImageFor(arch string, layers ...[]byte) ocispec.Descriptor {
	l.t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, content := range layers {
		plain := Tar(l.t, &tar.Header{Name: "data", Mode: 0o644}, content)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		m.Layers = append(m.Layers, l.Blob(ocispec.MediaTypeImageLayerGzip, Gzip(l.t, plain)))
	}
	m.Config = l.JSON(ocispec.MediaTypeImageConfig, config)
	return l.JSON(ocispec.MediaTypeImageManifest, m)
}

// Name adds an entry to the index.
func (l *Layout) Name(name string, d ocispec.Descriptor) {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	l.Index.Manifests = append(l.Index.Manifests, d)
}

// Save writes the index.
func (l *Layout) Save() *Layout {
	l.t.Helper()
	data, err := json.Marshal(l.Index)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Write(ocispec.ImageIndexFile, data)
	return l
}

// Referrer adds an artifact that refers to subject.
func (l *Layout) Referrer(subject ocispec.Descriptor, kind string, content []byte) ocispec.Descriptor {
	l.t.Helper()
	d := l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
		Config: l.Blob(ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{l.Blob(kind, content)}, Subject: &subject,
	})
	d.ArtifactType = kind
	return d
}

// Tar makes an archive of one file.
func Tar(t testing.TB, header *tar.Header, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	header.Size = int64(len(content))
	if err := w.WriteHeader(header); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Gzip compresses.
func Gzip(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // a level that exists
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Noise is content that cannot be compressed, the same for the same seed.
func Noise(seed uint64, size int) []byte {
	out := make([]byte, size)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(out) // never fails
	return out
}
