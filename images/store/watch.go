package store

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/internal/durable"
)

// Watch sends on changed after the index, the pins or one of the other files in
// the store's directory were replaced, by whatever process, until ctx ends. It
// drops what nobody has taken yet.
func (s *Store) Watch(ctx context.Context, changed chan<- struct{}, others ...string) error {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the store of images: %w", err)
	}
	defer w.Close()
	if err := w.Add(s.dir); err != nil {
		return fmt.Errorf("watch the store of images: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			return fmt.Errorf("watch the store of images: %w", err)
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			name := filepath.Base(e.Name)
			if name != ocispec.ImageIndexFile && name != pinsFile && !slices.Contains(others, name) {
				continue
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}
