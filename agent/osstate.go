package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/internal/durable"
)

// What is kept for the return to the system before belongs together: the cluster's state, the
// keys that parts of it are encrypted with, and how the machine is set up. Not what has been
// accepted and who is trusted: that never goes back.
func keptState(stateDir string) []string {
	p := paths.Paths{StateDir: stateDir}
	return []string{p.Etcd(), p.EncryptionKeys(), filepath.Join(stateDir, "boot.yaml"), filepath.Join(stateDir, "os", "settings")}
}

// keepState copies it. Nothing writes to it meanwhile. A copy that is not whole is not there.
func keepState(stateDir, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := enoughRoom(stateDir, keptState(stateDir)); err != nil {
		return err
	}
	partial := to + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	for _, from := range keptState(stateDir) {
		rel, err := filepath.Rel(stateDir, from)
		if err == nil {
			err = copyDurably(from, filepath.Join(partial, rel))
		}
		if err != nil {
			return fmt.Errorf("keep the state for the return to this system: %w", errors.Join(err, os.RemoveAll(partial)))
		}
	}
	if err := durable.MkdirAll(partial, 0o700); err != nil {
		return err
	}
	if err := os.Rename(partial, to); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}

// restoreState puts it back. It can be cut off anywhere and done again.
func restoreState(from, stateDir string) error {
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("what was kept is gone: %w", err)
	}
	for _, to := range keptState(stateDir) {
		rel, err := filepath.Rel(stateDir, to)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(from, rel)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		fresh := to + ".restored"
		if err := os.RemoveAll(fresh); err != nil {
			return err
		}
		if err := copyDurably(filepath.Join(from, rel), fresh); err != nil {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.Rename(fresh, to); err != nil {
			return err
		}
		if err := durable.SyncDir(filepath.Dir(to)); err != nil {
			return err
		}
	}
	return nil
}

// copyDurably copies a file or a directory; what is not there is left out.
func copyDurably(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == from {
			return nil
		}
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return durable.MkdirAll(target, info.Mode().Perm())
		case !info.Mode().IsRegular():
			return nil // sockets
		}
		if err := durable.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return durable.CopyFile(path, target, info.Mode().Perm())
	})
}

// enoughRoom says whether a copy fits, with something to spare.
func enoughRoom(stateDir string, what []string) error {
	var need int64
	for _, from := range what {
		err := filepath.WalkDir(from, func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				need += info.Size()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return roomFor(stateDir, need, "the state that is kept for the return to this system")
}

// spareRoom is what an update leaves free, in bytes.
const spareRoom = 64 << 20

func roomFor(dir string, need int64, what string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < need+spareRoom {
		return fmt.Errorf("%s takes %d MiB, and %d MiB are free on %s, of which %d MiB have to stay so: make room", what, need>>20, free>>20, dir, spareRoom>>20)
	}
	return nil
}
