package build

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of every file and every image: the zero of Unix time, so
// that a build does not depend on when it ran.
var epoch = time.Unix(0, 0).UTC()

// layer packs the files into one layer, in sorted order with fixed times and
// root as owner, adding the directories on the way.
func (f files) layer() (v1.Layer, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range f.withParents() {
		if err := e.write(tw); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	data := buf.Bytes()
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

func (f files) withParents() []file {
	seen := map[string]bool{}
	for _, e := range f.entries {
		seen[e.name] = true
	}
	out := slices.Clone(f.entries)
	for _, e := range f.entries {
		for dir := path.Dir(e.name); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			out = append(out, file{name: dir, mode: fs.ModeDir | 0o755})
		}
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return out
}

func (e file) write(tw *tar.Writer) error {
	h := &tar.Header{
		Name: e.name, Mode: tarMode(e.mode), ModTime: epoch,
		Format: tar.FormatPAX, Typeflag: tar.TypeReg,
	}
	switch {
	case e.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, e.name+"/"
	case e.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	}
	if e.from == "" {
		return tw.WriteHeader(h)
	}
	src, err := os.Open(e.from)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	h.Size = st.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.Copy(tw, src); err != nil {
		return fmt.Errorf("pack %s: %w", e.from, err)
	}
	return nil
}

// tarMode keeps permissions and drops what umask made differ: group and others
// may read what the owner may read, and execute what the owner may execute.
func tarMode(m fs.FileMode) int64 {
	perm := int64(0o644)
	if m.IsDir() || m&0o100 != 0 || m&fs.ModeSymlink != 0 {
		perm = 0o755
	}
	if m&fs.ModeSticky != 0 { // /tmp in a root file system
		perm = 0o1777
	}
	return perm
}
