package bundle

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/internal/durable"
)

// epoch is the time of every file: that of the bundle's content is the commit's.
var epoch = time.Unix(0, 0).UTC()

// writeTar packs a directory. The index comes first, so that a reader knows
// what follows; the blobs are in order of their names.
func writeTar(ctx context.Context, dir, file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing once it was renamed
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err := tarLayout(ctx, dir, buffered); err != nil {
		return err
	}
	err = errors.Join(buffered.Flush(), f.Chmod(0o644), f.Sync())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(file))
}

func tarLayout(ctx context.Context, dir string, out io.Writer) error {
	w := tar.NewWriter(out)
	for _, name := range []string{ocispec.ImageLayoutFile, ocispec.ImageIndexFile} {
		if err := tarFile(w, dir, name); err != nil {
			return err
		}
	}
	blobs := filepath.Join(ocispec.ImageBlobsDir, digest.SHA256.String())
	entries, err := os.ReadDir(filepath.Join(dir, blobs)) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := tarFile(w, dir, filepath.Join(blobs, e.Name())); err != nil {
			return err
		}
	}
	return w.Close()
}

func tarFile(w *tar.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644, Size: st.Size(), ModTime: epoch, Format: tar.FormatPAX}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
