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
	"time"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/bothy-os/bothy/reconciler/build/sops"
)

// filesystem shows a commit to kustomize, which wants absolute paths: "/" is
// the repository's root. It cannot be written to, and it remembers the first
// kustomization that asks for something forbidden, because kustomize takes an
// error while looking for a kustomization as "there is none".
type filesystem struct {
	builder *builder
	// overlay is seen instead of the files of the commit.
	overlay map[string][]byte
	// roles are the files that may be encrypted, as the kustomizations read so
	// far use them.
	roles   map[string]role
	refused error
	// ownSchema is set when a kustomization brings an OpenAPI schema.
	ownSchema bool
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
	return &openFile{Reader: bytes.NewReader(data), info: overlayInfo{name: path.Base(name), size: len(data)}}, nil
}

// stat describes what is at a path as kustomize knows it.
func (f *filesystem) stat(name string) (fs.FileInfo, error) {
	at := relative(name)
	if data, ok := f.overlay[at]; ok {
		return overlayInfo{name: path.Base(at), size: len(data)}, nil
	}
	return fs.Stat(f.builder.fsys, at)
}

func (f *filesystem) IsDir(name string) bool {
	info, err := f.stat(name)
	return err == nil && info.IsDir()
}

func (f *filesystem) Exists(name string) bool {
	_, err := f.stat(name)
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
	info, err := f.stat(name)
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
	data, overlaid := f.overlay[at]
	var err error
	if !overlaid {
		data, err = f.builder.readFile(at)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && f.refused == nil && !f.IsDir(name) {
			f.refused = &Error{File: at, Problem: reason(err)}
		}
		return nil, err
	}
	if slices.Contains(kustomizationNames, path.Base(at)) {
		err = f.kustomizationFile(at, data)
	} else {
		data, err = f.content(at, data)
	}
	if err != nil {
		if f.refused == nil {
			f.refused = withFile(err, at, "")
		}
		return nil, err
	}
	return data, nil
}

// kustomizationFile judges a kustomization and learns how it uses files.
func (f *filesystem) kustomizationFile(name string, data []byte) error {
	if err := guard(name, data, true); err != nil {
		return err
	}
	documents, err := decodeAll(data)
	if err != nil {
		return err
	}
	for _, doc := range documents {
		if content, ok := doc.(map[string]any); ok {
			f.learn(path.Dir(name), content)
		}
	}
	return nil
}

// content judges another file and decrypts it if it is used for something that
// may be encrypted.
func (f *filesystem) content(name string, data []byte) ([]byte, error) {
	use, known := f.roles[name]
	switch {
	case known && use.manifest:
		var err error
		if data, err = f.builder.decryptManifest(name, data); err != nil {
			return nil, err
		}
	case known && f.builder.options.Decrypt != nil && sops.Encrypted(data, use.format):
		return f.builder.decrypt(data, use.format)
	}
	return data, guard(name, data, false)
}

// learn notes which files the kustomization in dir takes objects, patches and
// secrets from. Its keys are in lower case.
func (f *filesystem) learn(dir string, content map[string]any) {
	if content["openapi"] != nil {
		f.ownSchema = true
	}
	use := func(name string, r role) {
		name = relative(path.Join("/", dir, name))
		if _, known := f.roles[name]; !known {
			f.roles[name] = r
		}
	}
	for _, name := range stringsIn(content["resources"]) {
		use(name, role{manifest: true})
	}
	for _, name := range pathsIn(content["patches"]) {
		use(name, role{manifest: true})
	}
	generators, _ := content["secretgenerator"].([]any)
	for _, g := range generators {
		generator, _ := g.(map[string]any)
		for _, source := range stringsIn(generator["files"]) {
			key, name, keyed := strings.Cut(source, "=")
			if !keyed {
				name = key
			}
			use(name, role{format: sops.FormatOf(key)})
		}
		for _, name := range append(stringsIn(generator["envs"]), stringsIn(generator["env"])...) {
			format := sops.FormatOf(name)
			if format == sops.Binary {
				format = sops.Dotenv
			}
			use(name, role{format: format})
		}
	}
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

// overlayInfo describes a file that is in memory.
type overlayInfo struct {
	name string
	size int
}

func (i overlayInfo) Name() string       { return i.name }
func (i overlayInfo) Size() int64        { return int64(i.size) }
func (i overlayInfo) Mode() fs.FileMode  { return 0o444 }
func (i overlayInfo) ModTime() time.Time { return time.Time{} }
func (i overlayInfo) IsDir() bool        { return false }
func (i overlayInfo) Sys() any           { return nil }

type openFile struct {
	*bytes.Reader
	info fs.FileInfo
}

func (o *openFile) Close() error               { return nil }
func (o *openFile) Stat() (fs.FileInfo, error) { return o.info, nil }
func (o *openFile) Write([]byte) (int, error)  { return 0, fmt.Errorf("write: %w", errReadOnly) }
