package bundle

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/internal/durable"
)

// ingestDir holds blobs that have not arrived whole.
const ingestDir = "ingest"

// Blobs is the blobs directory of an image layout on disk, with a place for
// those that are under way. A file below blobs/ is whole and hashes to its name.
type Blobs struct {
	// Dir is the directory of the layout.
	Dir string
}

// Path is where a blob is, or would be.
func (b Blobs) Path(d digest.Digest) string {
	return filepath.Join(b.Dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (b Blobs) ingestPath(d digest.Digest) string {
	return filepath.Join(b.Dir, ingestDir, d.Algorithm().String()+"-"+d.Encoded())
}

// Has reports whether a blob is there with the size that desc says.
func (b Blobs) Has(desc ocispec.Descriptor) bool {
	st, err := os.Stat(b.Path(desc.Digest))
	return err == nil && st.Mode().IsRegular() && st.Size() == desc.Size
}

// Take brings in a blob. One that an earlier, interrupted call began goes on where that
// ended: open is called with the number of bytes that are there. read counts
// the bytes that were taken in; it may be nil.
//
// A blob that is there already is not opened.
func (b Blobs) Take(ctx context.Context, desc ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error), read func(n int64)) error {
	if b.Has(desc) {
		return nil
	}
	for _, dir := range []string{filepath.Dir(b.Path(desc.Digest)), filepath.Join(b.Dir, ingestDir)} {
		if err := durable.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	begun, err := b.take(ctx, desc, open, read)
	var wrong *CorruptError
	if begun && errors.As(err, &wrong) {
		// The beginning may be what is wrong, after a power cut for instance.
		_, err = b.take(ctx, desc, open, read)
	}
	return err
}

// take reports whether there was a beginning.
func (b Blobs) take(ctx context.Context, desc ocispec.Descriptor, open func(int64) (io.ReadCloser, error), read func(int64)) (begun bool, err error) {
	path := b.ingestPath(desc.Digest)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		begun = st.Size() > 0
	}
	err = fill(ctx, f, desc, open, read)
	var wrong *CorruptError
	if errors.As(err, &wrong) {
		// What is there would be as wrong the next time.
		return begun, errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return begun, err
	}
	return begun, b.commit(f, desc)
}

// commit makes a whole file the blob.
func (b Blobs) commit(f *os.File, desc ocispec.Descriptor) error {
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	path := b.Path(desc.Digest)
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// CorruptError says that content is not what its digest says.
type CorruptError struct {
	Digest digest.Digest
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("blob %s is damaged: %v; copy or make the bundle again", e.Digest, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// fill brings a file to its full length and checks all of it.
func fill(ctx context.Context, f *os.File, desc ocispec.Descriptor, open func(int64) (io.ReadCloser, error), read func(int64)) error {
	check := desc.Digest.Algorithm().Hash()
	have, err := io.Copy(check, f)
	if err != nil {
		return err
	}
	if have > desc.Size {
		return &CorruptError{desc.Digest, fmt.Errorf("has more than %d bytes", desc.Size)}
	}
	if have < desc.Size {
		from, err := open(have)
		if err != nil {
			return err
		}
		defer from.Close()
		if err := copyRest(ctx, f, check, from, desc, have, read); err != nil {
			return err
		}
	}
	if got := digest.NewDigest(desc.Digest.Algorithm(), check); got != desc.Digest {
		return &CorruptError{desc.Digest, fmt.Errorf("content hashes to %s", got)}
	}
	return nil
}

func copyRest(ctx context.Context, f *os.File, check hash.Hash, from io.Reader, desc ocispec.Descriptor, have int64, read func(int64)) error {
	buffer := make([]byte, 256<<10)
	for ctx.Err() == nil {
		n, err := from.Read(buffer)
		if have += int64(n); have > desc.Size {
			return &CorruptError{desc.Digest, fmt.Errorf("has more than %d bytes", desc.Size)}
		}
		if _, err := f.Write(buffer[:n]); err != nil {
			return err
		}
		_, _ = check.Write(buffer[:n]) // a hash takes everything
		if read != nil {
			read(int64(n))
		}
		if errors.Is(err, io.EOF) {
			if have < desc.Size {
				return fmt.Errorf("blob %s ends after %d of %d bytes: %w", desc.Digest, have, desc.Size, io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Put stores content that is in memory, such as a manifest.
func (b Blobs) Put(mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if b.Has(desc) {
		return desc, nil
	}
	return desc, durable.WriteFile(b.Path(desc.Digest), data, 0o444)
}

// RemoveExcept removes all blobs that keep does not name, and what had not
// arrived whole.
func (b Blobs) RemoveExcept(keep map[digest.Digest]bool) error {
	if err := os.RemoveAll(filepath.Join(b.Dir, ingestDir)); err != nil {
		return err
	}
	dir := filepath.Join(b.Dir, ocispec.ImageBlobsDir, digest.SHA256.String())
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[digest.NewDigestFromEncoded(digest.SHA256, e.Name())] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
