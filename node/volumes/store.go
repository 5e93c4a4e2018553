package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/durable"
)

// trashDir holds directories on their way out. The dot keeps it apart from
// volumes.
const trashDir = ".trash"

// store is the directory of volumes.
type store struct {
	dir   string
	quota quota
	log   *slog.Logger

	// mu serialises what chooses names or project numbers.
	mu sync.Mutex
	// dirty wakes the sweeper.
	dirty chan struct{}
}

func newStore(dir string, log *slog.Logger) *store {
	return &store{dir: dir, quota: &projectQuota{dir: dir}, log: log, dirty: make(chan struct{}, 1)}
}

// open makes the directories. Only root may enter: a volume is reached through
// the mount in its pod.
func (s *store) open() error {
	for _, dir := range []string{s.dir, filepath.Join(s.dir, trashDir)} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory for volumes: %w", err)
		}
	}
	s.wake()
	return nil
}

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

// create makes a volume's directory with a limit, and returns what is true
// about its capacity. A directory that exists is kept as it is.
func (s *store) create(name string, bytes int64) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(name)
	if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// Mkdir is subject to umask.
	if st, err := os.Stat(path); err != nil {
		return "", err
	} else if st.Mode().Perm()|0o777 != st.Mode().Perm() && isEmpty(path) {
		if err := os.Chmod(path, 0o777); err != nil {
			return "", err
		}
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return "", err
	}
	return s.limitLocked(name, bytes)
}

// limit sets the largest size of a volume, in bytes, and returns what is true
// about its capacity.
func (s *store) limit(name string, bytes int64) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limitLocked(name, bytes)
}

func (s *store) limitLocked(name string, bytes int64) (string, error) {
	if err := s.quota.check(); err != nil {
		return "not enforced: " + err.Error(), nil //nolint:nilerr // a volume without a limit is still one
	}
	project, err := s.quota.project(s.path(name))
	if err != nil {
		return "", err
	}
	if err := s.quota.set(project, bytes); err != nil {
		return "", err
	}
	return fmt.Sprintf("enforced by project quota %d", project), nil
}

// discard renames a volume's directory into the trash. It is gone for good
// once the rename is on disk; a power cut before leaves it whole.
func (s *store) discard(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" || name == "." || strings.ContainsRune(name, filepath.Separator) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("%q is not the name of a volume", name)
	}
	err := os.Rename(s.path(name), filepath.Join(s.dir, trashDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // done before a crash
	}
	if err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(s.dir, trashDir), s.dir} {
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	s.wake()
	return nil
}

// sweep empties the trash whenever there is something in it, until ctx ends.
// What it does not finish is there at the next start.
func (s *store) sweep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.dirty:
		}
		if err := s.emptyTrash(); err != nil {
			s.log.Warn("deleted volumes could not be removed from disk; tried again at the next deletion or start", "dir", filepath.Join(s.dir, trashDir), "err", err)
		}
	}
}

func (s *store) emptyTrash() error {
	trash := filepath.Join(s.dir, trashDir)
	entries, err := os.ReadDir(trash)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(trash, e.Name())
		// The limit goes first: once the directory is gone, its project number
		// may be given to a new volume.
		if project, known := s.quota.existing(path); known {
			errs = append(errs, s.quota.set(project, 0))
		}
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// removeOrphans removes directories that were made for a volume that then was
// not: their PersistentVolume does not exist and they are empty. A directory
// with anything in it is kept, whoever it may belong to.
func (s *store) removeOrphans(exists func(directory string) bool) error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if exists(name) {
			continue
		}
		if err := os.Remove(s.path(name)); err == nil {
			s.log.Debug("empty directory without a volume removed", "dir", name)
			continue
		}
		s.log.Warn("directory without a PersistentVolume kept, because it holds data; remove it by hand if nobody needs it", "dir", s.path(name))
	}
	return nil
}

// names are the directories of volumes.
func (s *store) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (s *store) count() int {
	names, err := s.names()
	if err != nil {
		return 0
	}
	return len(names)
}

// totalBytes is the size of the file system volumes lie on.
func (s *store) totalBytes() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Blocks) * st.Bsize, nil
}

func (s *store) wake() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

func isEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}
