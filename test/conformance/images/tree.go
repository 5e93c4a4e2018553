package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// node is one file, directory or symbolic link of an image.
type node struct {
	kind byte // tar.TypeReg, tar.TypeDir or tar.TypeSymlink
	mode int64
	data []byte
	link string
}

// tree is a file system by path, without leading slashes.
type tree map[string]node

func (t tree) file(name string, mode int64, data []byte) {
	t[name] = node{kind: tar.TypeReg, mode: mode, data: data}
}

func (t tree) text(name, content string) { t.file(name, 0o644, []byte(content)) }

func (t tree) dir(name string, mode int64) { t[name] = node{kind: tar.TypeDir, mode: mode} }

func (t tree) symlink(name, target string) {
	t[name] = node{kind: tar.TypeSymlink, mode: 0o777, link: target}
}

// copy adds a file of this machine.
func (t tree) copy(name string, mode int64, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	t.file(name, mode, data)
	return nil
}

// over returns the files of both; those of upper win.
func (t tree) over(upper tree) tree {
	out := maps.Clone(t)
	maps.Copy(out, upper)
	return out
}

// layer packs the tree with fixed order, times and owners, so that the same
// content has the same digest whenever it is built. Layers stay on the machine
// that made them: compressing them well would only cost time.
func (t tree) layer() (v1.Layer, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(t.withParents())) {
		if err := t.withParent(name).write(tw, name); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
}

// withParents is the set of all names, directories on the way included.
func (t tree) withParents() map[string]bool {
	names := map[string]bool{}
	for name := range t {
		for ; name != "."; name = path.Dir(name) {
			names[name] = true
		}
	}
	return names
}

// withParent is the node, or a plain directory where only something below it
// was named.
func (t tree) withParent(name string) node {
	if n, ok := t[name]; ok {
		return n
	}
	return node{kind: tar.TypeDir, mode: 0o755}
}

func (n node) write(tw *tar.Writer, name string) error {
	h := &tar.Header{
		Typeflag: n.kind, Name: name, Mode: n.mode, Linkname: n.link, Size: int64(len(n.data)),
		ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatPAX,
	}
	if n.kind == tar.TypeDir {
		h.Name += "/"
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(n.data)
	return err
}

// unpack reads an archive into the tree, leaving out what keep refuses. Hard
// links become copies.
func (t tree) unpack(r io.Reader, keep func(name string) bool) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if name == "" || !keep(name) {
			continue
		}
		n := node{kind: h.Typeflag, mode: h.Mode, link: h.Linkname}
		switch h.Typeflag {
		case tar.TypeReg:
			if n.data, err = io.ReadAll(tr); err != nil {
				return err
			}
		case tar.TypeLink:
			n = t[strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")]
		case tar.TypeDir, tar.TypeSymlink:
		default:
			continue
		}
		t[name] = n
	}
}
