// Package debian names the packages that virtual machines for tests are made of: kernels
// with their modules, and a static busybox.
//
// It must not know what the packages are used for.
package debian

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bothy-os/bothy/internal/debian"
)

//go:embed packages.yaml
var packagesYAML []byte

// Kernel is an unpacked kernel.
type Kernel = debian.Kernel

// Store is a directory of unpacked packages.
type Store struct{ *debian.Store }

// Open returns the store in a directory, which is made if missing.
func Open(dir string) (*Store, error) {
	lock, err := debian.ParseLock("test/vm/debian/packages.yaml", packagesYAML)
	if err != nil {
		return nil, err
	}
	s, err := debian.Open(dir, lock)
	return &Store{s}, err
}

// Busybox returns the path of a statically linked busybox.
func (s *Store) Busybox(ctx context.Context) (string, error) {
	dirs, err := s.Unpacked(ctx, "busybox-static")
	if err != nil {
		return "", err
	}
	for _, path := range []string{"usr/bin/busybox", "bin/busybox"} {
		file := filepath.Join(dirs[0], path)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("there is no busybox in %s", dirs[0])
}
