package bundle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Visitor takes the parts of a bundle in the order in which they are stored.
// Content that it does not read is skipped, without reading it where the
// source can do that.
type Visitor struct {
	// Index gets index.json.
	Index func(content io.Reader) error
	// Blob gets a file below blobs/. Its digest is its name, so far; size is
	// how long it is. open gives the content from an offset, once.
	Blob func(name digest.Digest, size int64, open func(offset int64) (io.ReadCloser, error)) error
}

// ReadPath visits a bundle that is a directory or a tar file.
func ReadPath(ctx context.Context, path string, v Visitor) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return ReadDir(ctx, path, v)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return Read(ctx, f, v)
}

// ReadDir visits a bundle that is a directory.
func ReadDir(ctx context.Context, dir string, v Visitor) error {
	f, err := os.Open(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return fmt.Errorf("open image layout: %w", err)
	}
	err = v.Index(f)
	f.Close()
	if err != nil {
		return err
	}
	blobs := filepath.Join(dir, ocispec.ImageBlobsDir, digest.SHA256.String())
	entries, err := os.ReadDir(blobs)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := blobName(path.Join(ocispec.ImageBlobsDir, digest.SHA256.String(), e.Name()))
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !ok || !info.Mode().IsRegular() {
			continue // nothing that an index could name
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = v.Blob(name, info.Size(), func(offset int64) (io.ReadCloser, error) {
			f, err := os.Open(filepath.Join(blobs, e.Name()))
			if err != nil {
				return nil, err
			}
			_, err = f.Seek(offset, io.SeekStart)
			return f, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Read visits a bundle that is a tar stream. A name in it is compared with those
// that a layout has and never used as a path, so it cannot lead anywhere.
func Read(ctx context.Context, r io.Reader, v Visitor) error {
	in := tar.NewReader(r)
	seen := false
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			if !seen {
				return errors.New("the file is no bundle: it has no index.json")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the bundle, which must be an uncompressed tar file: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name := path.Clean(header.Name)
		blob, isBlob := blobName(name)
		switch {
		case header.Typeflag == tar.TypeDir:
		case header.Typeflag != tar.TypeReg || isSparse(header):
			if isBlob || name == ocispec.ImageIndexFile {
				return fmt.Errorf("%s in the bundle is no plain file", name)
			}
		case name == ocispec.ImageIndexFile:
			if seen {
				return errors.New("the bundle has two index.json, and which counts would depend on who reads it")
			}
			seen = true
			err = v.Index(in)
		case isBlob:
			err = v.Blob(blob, header.Size, once(in))
		}
		if err != nil {
			return err
		}
	}
}

// isSparse reports whether a file is stored with holes: a few bytes could stand
// for any number.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// once opens a part of a stream, which cannot be read again.
func once(in io.Reader) func(int64) (io.ReadCloser, error) {
	opened := false
	return func(offset int64) (io.ReadCloser, error) {
		if opened {
			return nil, errors.New("the stream cannot be read again; run the import again")
		}
		opened = true
		if _, err := io.CopyN(io.Discard, in, offset); err != nil {
			return nil, err
		}
		return io.NopCloser(in), nil
	}
}

// blobName returns the digest that the path of a blob stands for.
func blobName(name string) (digest.Digest, bool) {
	dir, hex := path.Split(name)
	if dir != ocispec.ImageBlobsDir+"/"+digest.SHA256.String()+"/" {
		return "", false
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, hex)
	return d, d.Validate() == nil
}
