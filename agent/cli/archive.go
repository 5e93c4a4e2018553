package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxArchive bounds what is sent to the agent, in bytes. A repository describes
// clusters; it does not hold their data.
const maxArchive = 64 << 20

// packFiles makes an archive of files below dir; nil means all but .git.
func packFiles(dir string, names []string) (io.Reader, error) {
	if names == nil {
		var err error
		if names, err = allFiles(dir); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		if err := packFile(w, dir, name); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if out.Len() > maxArchive {
			return nil, fmt.Errorf("%s holds more than %d MiB; is it the root of a repository?", dir, maxArchive>>20)
		}
	}
	return &out, w.Close()
}

func allFiles(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && e.Name() == ".git":
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, name)
		return err
	})
	return names, err
}

func packFile(w *tar.Writer, dir, name string) error {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil // deleted in the working tree, or nothing that a build reads
	}
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), Size: int64(len(data)), ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
