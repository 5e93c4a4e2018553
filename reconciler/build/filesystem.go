package build

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// filesystem shows a commit to kustomize, which wants absolute paths: "/" is
// the repository's root. It cannot be written to, and it remembers the first
// kustomization that asks for something forbidden, because kustomize takes an
// error while looking for a kustomization as "there is none".
type filesystem struct {
	builder *builder
	refused error
}

var errReadOnly = errors.New("the commit is read-only")

// absolute and relative translate between the two kinds of path.
func absolute(name string) string { return path.Join("/", name) }

func relative(name string) string {
	clean := strings.TrimPrefix(path.Join("/", filepath.ToSlash(name)), "/")
	if clean == "" {
		return "."
	}
	return clean
}

func (f *filesystem) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (f *filesystem) Mkdir(string) error                  { return errReadOnly }
func (f *filesystem) MkdirAll(string) error               { return errReadOnly }
func (f *filesystem) RemoveAll(string) error              { return errReadOnly }
func (f *filesystem) WriteFile(string, []byte) error      { return errReadOnly }

// Open is part of the interface; kustomize reads through ReadFile.
func (f *filesystem) Open(name string) (filesys.File, error) {
	data, err := f.ReadFile(name)
	if err != nil {
		return nil, err
	}
	info, err := fs.Stat(f.builder.fsys, relative(name))
	if err != nil {
		return nil, err
	}
	return &openFile{Reader: bytes.NewReader(data), info: info}, nil
}

func (f *filesystem) IsDir(name string) bool {
	info, err := fs.Stat(f.builder.fsys, relative(name))
	return err == nil && info.IsDir()
}

func (f *filesystem) Exists(name string) bool {
	_, err := fs.Stat(f.builder.fsys, relative(name))
	return err == nil
}

func (f *filesystem) ReadDir(name string) ([]string, error) {
	entries, err := fs.ReadDir(f.builder.fsys, relative(name))
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (f *filesystem) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	info, err := fs.Stat(f.builder.fsys, relative(name))
	if err != nil {
		return "", "", err
	}
	clean := absolute(relative(name))
	if info.IsDir() {
		return filesys.ConfirmedDir(clean), "", nil
	}
	return filesys.ConfirmedDir(path.Dir(clean)), path.Base(clean), nil
}

func (f *filesystem) ReadFile(name string) ([]byte, error) {
	at := relative(name)
	data, err := f.builder.readFile(at)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && f.refused == nil && !f.IsDir(name) {
			f.refused = &Error{File: at, Problem: reason(err)}
		}
		return nil, err
	}
	if err := guard(at, data, slices.Contains(kustomizationNames, path.Base(at))); err != nil {
		if f.refused == nil {
			f.refused = err
		}
		return nil, err
	}
	return data, nil
}

// reason is the error without the operation and path that are said already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

func (f *filesystem) Glob(pattern string) ([]string, error) {
	names, err := fs.Glob(f.builder.fsys, relative(pattern))
	for i, name := range names {
		names[i] = absolute(name)
	}
	return names, err
}

func (f *filesystem) Walk(root string, visit filepath.WalkFunc) error {
	return fs.WalkDir(f.builder.fsys, relative(root), func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return visit(absolute(name), nil, err)
		}
		info, err := e.Info()
		return visit(absolute(name), info, err)
	})
}

type openFile struct {
	*bytes.Reader
	info fs.FileInfo
}

func (o *openFile) Close() error               { return nil }
func (o *openFile) Stat() (fs.FileInfo, error) { return o.info, nil }
func (o *openFile) Write([]byte) (int, error)  { return 0, fmt.Errorf("write: %w", errReadOnly) }
