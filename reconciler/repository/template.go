package repository

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// copyTemplate copies the regular files of template into dir. Links and special
// files are refused: a site would not follow them.
func copyTemplate(template fs.FS, dir string) error {
	return fs.WalkDir(template, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read template: %w", err)
		}
		target := filepath.Join(dir, filepath.FromSlash(name))
		switch {
		case e.IsDir() && e.Name() == ".git":
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(target, 0o755)
		case !e.Type().IsRegular():
			return fmt.Errorf("template file %s is not a regular file", name)
		}
		data, err := fs.ReadFile(template, name)
		if err != nil {
			return fmt.Errorf("read template: %w", err)
		}
		return os.WriteFile(target, data, 0o644)
	})
}

// vacant refuses a directory that holds something.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("target directory: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("target directory %s is not empty; choose another one, or remove it", dir)
	}
	return nil
}
