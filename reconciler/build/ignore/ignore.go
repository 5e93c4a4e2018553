package ignore

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"
)

// FS is files without the ignored ones. It may be used by several goroutines if
// the files may.
type FS struct {
	files    fs.FS
	text     string
	patterns []gitignore.Pattern

	mu    sync.Mutex
	rules map[string][]gitignore.Pattern // of a directory and those above it
}

// New hides from files what is ignored. patterns are those of the source
// object, in the syntax of .gitignore; they are stronger than the .sourceignore
// files, which are stronger than the defaults.
func New(files fs.FS, patterns string) *FS {
	return &FS{
		files:    files,
		text:     patterns,
		patterns: sourceignore.ReadPatterns(strings.NewReader(patterns), nil),
		rules:    map[string][]gitignore.Pattern{},
	}
}

// Files returns the files with the ignored ones.
func (f *FS) Files() fs.FS { return f.files }

// Patterns returns the patterns of the source object.
func (f *FS) Patterns() string { return f.text }

// Ignored reports whether a file is hidden.
func (f *FS) Ignored(name string) (bool, error) {
	rules, err := f.rulesFor(path.Dir(name))
	if err != nil {
		return false, err
	}
	elements := strings.Split(name, "/")
	// The last pattern that knows the file decides.
	for _, patterns := range [][]gitignore.Pattern{f.patterns, rules} {
		for i := len(patterns) - 1; i >= 0; i-- {
			switch patterns[i].Match(elements, false) {
			case gitignore.Exclude:
				return true, nil
			case gitignore.Include:
				return false, nil
			}
		}
	}
	return false, nil
}

// rulesFor returns the rules for files in a directory, weakest first.
func (f *FS) rulesFor(dir string) ([]gitignore.Pattern, error) {
	f.mu.Lock()
	rules, known := f.rules[dir]
	f.mu.Unlock()
	if known {
		return rules, nil
	}
	var domain []string
	if dir == "." {
		rules = append(sourceignore.VCSPatterns(nil), sourceignore.DefaultPatterns(nil)...)
	} else {
		above, err := f.rulesFor(path.Dir(dir))
		if err != nil {
			return nil, err
		}
		rules, domain = above, strings.Split(dir, "/")
	}
	data, err := fs.ReadFile(f.files, path.Join(dir, sourceignore.IgnoreFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if own := sourceignore.ReadPatterns(bytes.NewReader(data), domain); len(own) > 0 {
		rules = append(rules[:len(rules):len(rules)], own...)
	}
	f.mu.Lock()
	f.rules[dir] = rules
	f.mu.Unlock()
	return rules, nil
}

// check returns fs.ErrNotExist for a hidden file.
func (f *FS) check(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return nil
	}
	hidden, err := f.Ignored(name)
	if err == nil && hidden {
		err = fs.ErrNotExist
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// Open opens a file or directory.
func (f *FS) Open(name string) (fs.File, error) {
	info, err := f.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		entries, err := f.ReadDir(name)
		if err != nil {
			return nil, err
		}
		return &openDir{info: info, entries: entries}, nil
	}
	return f.files.Open(name)
}

// Stat describes a file or directory.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	info, err := fs.Stat(f.files, name)
	if err != nil || info.IsDir() {
		return info, err
	}
	return info, f.check("stat", name)
}

// ReadFile returns the content of a file.
func (f *FS) ReadFile(name string) ([]byte, error) {
	if err := f.check("read", name); err != nil {
		return nil, err
	}
	return fs.ReadFile(f.files, name)
}

// ReadDir lists a directory.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.files, name)
	if err != nil {
		return nil, err
	}
	out := make([]fs.DirEntry, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			hidden, err := f.Ignored(path.Join(name, e.Name()))
			if err != nil {
				return nil, err
			}
			if hidden {
				continue
			}
		}
		out = append(out, e)
	}
	return out, nil
}
