package bundle

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Base is a bundle that the receiver of another one has.
type Base struct {
	// Digest names the bundle, Commit is the commit in it, if any.
	Digest digest.Digest
	Commit string
	layers map[digest.Digest]bool
}

// has reports whether a layer is in the base or in what that builds on.
func (b *Base) has(d digest.Digest) bool { return b != nil && b.layers[d] }

// OpenBase reads which layers a bundle stands for: those in it, and those of the
// bundle that it builds on itself. Layers are not read where they can be skipped.
func OpenBase(ctx context.Context, path string) (*Base, error) {
	dir, err := os.MkdirTemp("", "bothy-base-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	var index *Index
	err = ReadPath(ctx, path, Visitor{
		Index: func(r io.Reader) (err error) {
			index, err = DecodeIndex(r, dir)
			return err
		},
		Blob: func(name digest.Digest, size int64, open func(int64) (io.ReadCloser, error)) error {
			if size > maxDocument {
				return nil
			}
			content, err := open(0)
			if err != nil {
				return err
			}
			defer content.Close()
			data, err := io.ReadAll(content)
			if err != nil || len(data) == 0 || data[0] != '{' {
				return err
			}
			_, err = Blobs{Dir: dir}.Put("", data)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	b := &Base{Digest: index.Digest, Commit: index.Commit, layers: map[digest.Digest]bool{}}
	for _, img := range slices.Concat(index.Images, index.Artifacts) {
		t, err := blobsOf(index.Layout, img.Descriptor, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", called(img), err)
		}
		for _, d := range t.layers {
			b.layers[d.Digest] = true
		}
	}
	return b, nil
}
