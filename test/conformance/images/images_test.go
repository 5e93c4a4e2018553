package images

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func layerOf(t *testing.T, files tree) v1.Layer {
	t.Helper()
	l, err := files.layer()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLayerKeepsModesAndAddsParents(t *testing.T) {
	files := tree{}
	files.file("usr/bin/nnp", 0o4755, []byte("program"))
	files.symlink("bin/sh", "/bin/busybox")
	files.dir("tmp", 0o1777)
	r, err := layerOf(t, files).Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+h.FileInfo().Mode().String()+h.Linkname)
	}
	want := "bin/drwxr-xr-x bin/shLrwxrwxrwx/bin/busybox tmp/dtrwxrwxrwx usr/drwxr-xr-x usr/bin/drwxr-xr-x usr/bin/nnpurwxr-xr-x"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestSameContentSameLayer(t *testing.T) {
	digest := func() string {
		files := base()
		files.text("a", "1")
		d, err := layerOf(t, files).Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	if a, b := digest(), digest(); a != b {
		t.Errorf("%s and %s", a, b)
	}
}

func TestUnpackTurnsHardLinksIntoCopies(t *testing.T) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "./usr/bin/a", Mode: 0o755, Size: 1},
		{Typeflag: tar.TypeLink, Name: "./usr/bin/b", Linkname: "./usr/bin/a"},
		{Typeflag: tar.TypeReg, Name: "./usr/share/doc/a/copyright", Size: 1},
	} {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	files := tree{}
	if err := files.unpack(&buf, wanted); err != nil {
		t.Fatal(err)
	}
	if b := files["usr/bin/b"]; string(b.data) != "x" || b.mode != 0o755 {
		t.Errorf("the hard link is %+v", b)
	}
	if _, ok := files["usr/share/doc/a/copyright"]; ok {
		t.Error("documentation was not left out")
	}
}

func TestServedImageIsWhole(t *testing.T) {
	files := tree{}
	files.text("pause", "program")
	image, err := assemble(Image{Name: "registry.k8s.io/pause:1", layers: []v1.Layer{layerOf(t, files)}, entrypoint: []string{"/pause"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := served("pause", "testing", image)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := v1.NewHash(strings.TrimSpace(string(got["var/registry/pause/manifests/testing"].data)))
	if err != nil {
		t.Fatal(err)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(got[digestPath("var/registry/pause/manifests", hash)].data))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(got[digestPath("var/registry/pause/manifests", index.Manifests[0].Digest)].data))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		if blob := got[digestPath("var/registry/pause/blobs", d.Digest)]; int64(len(blob.data)) != d.Size {
			t.Errorf("blob %s has %d bytes, want %d", d.Digest, len(blob.data), d.Size)
		}
	}
}
