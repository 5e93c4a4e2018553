package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"sync"

	"github.com/bothy-os/bothy/reconciler/build/ignore"
)

// Reads is everything that a build read, listed or looked for, found or not.
//
// It is a tree of the paths that were touched, each with its object id. Two
// trees of files are compared from the root and not below a directory whose id
// is the same, so that the cost depends on what the build read and what has
// changed, and not on the size of the repository.
type Reads struct {
	mu       sync.Mutex
	source   fs.FS
	patterns string
	top      *seen
	// doubtful says that something could not be read though it is there, as on a
	// failing disk: nothing is known to be the same as that.
	doubtful bool
}

// seen is one path.
type seen struct {
	id    string // object id, "" if missing or if the files have no ids
	kind  kind
	whole string // digest of the content if it was read and there are no ids
	read  bool   // the content of a file was read
	// listing is the digest of names and kinds, if the directory was listed.
	listing  string
	children map[string]*seen
}

// kind is what is at a path.
type kind byte

const (
	unknown kind = iota
	missing
	file
	directory
	other
)

// identified is implemented by files whose paths have object ids.
type identified interface {
	// ID returns the object id of a file or directory, fs.ErrNotExist if there
	// is none.
	ID(name string) (string, error)
}

// newReads starts a record of reads from files, which may be an [ignore.FS].
func newReads(files fs.FS) *Reads {
	source, patterns := unwrap(files)
	return &Reads{source: source, patterns: patterns, top: &seen{}}
}

func unwrap(files fs.FS) (fs.FS, string) {
	if f, ok := files.(*ignore.FS); ok {
		return f.Files(), f.Patterns()
	}
	return files, ""
}

// files shows the files without the ignored ones; what is read is recorded,
// files of ignore rules included.
func (r *Reads) files() *ignore.FS {
	return ignore.New(&recorder{r}, r.patterns)
}

// seal takes the ids of all recorded paths; nothing is recorded afterwards.
func (r *Reads) seal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ids, ok := r.source.(identified); ok {
		r.top.identify(ids, ".")
	}
	r.source = nil
}

func (s *seen) identify(ids identified, name string) {
	s.id, _ = ids.ID(name)
	if s.id == "" {
		// What is missing has nothing below it.
		s.children = nil
		return
	}
	for element, child := range s.children {
		child.identify(ids, join(name, element))
	}
}

// Same reports whether every path that the build touched is the same in fsys,
// so that a build with the same options would have the same result.
func (r *Reads) Same(fsys fs.FS) bool {
	source, patterns := unwrap(fsys)
	return !r.doubtful && patterns == r.patterns && r.top.same(source, ".")
}

func (s *seen) same(fsys fs.FS, name string) bool {
	if ids, ok := fsys.(identified); ok && s.id != "" {
		id, err := ids.ID(name)
		switch {
		case err != nil:
			return false
		case id == s.id:
			// The same bytes could have become a link.
			return s.kind != file || kindOf(fsys, name) == file
		case s.read:
			return false
		}
	}
	if s.kind != unknown && kindOf(fsys, name) != s.kind {
		return false
	}
	if s.whole != "" && s.whole != contentDigest(fsys, name) {
		return false
	}
	if s.listing != "" {
		entries, err := fs.ReadDir(fsys, name)
		if err != nil || s.listing != listingDigest(entries) {
			return false
		}
	}
	for element, child := range s.children {
		if !child.same(fsys, join(name, element)) {
			return false
		}
	}
	return true
}

func join(dir, element string) string {
	if dir == "." {
		return element
	}
	return dir + "/" + element
}

func kindOf(fsys fs.FS, name string) kind {
	info, err := fs.Stat(fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing
	case err != nil:
		return other
	}
	return kindOfMode(info.Mode())
}

func kindOfMode(mode fs.FileMode) kind {
	switch {
	case mode.IsDir():
		return directory
	case mode.IsRegular():
		return file
	}
	return other
}

func contentDigest(fsys fs.FS, name string) string {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return "unreadable"
	}
	return digest(data)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func listingDigest(entries []fs.DirEntry) string {
	var b bytes.Buffer
	for _, e := range entries {
		b.WriteString(e.Name())
		b.WriteByte('/')
		b.WriteByte(byte('0' + kindOfMode(e.Type())))
	}
	return digest(b.Bytes())
}

// note returns the record of a path.
func (r *Reads) note(name string, change func(*seen)) {
	if !fs.ValidPath(name) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.top
	if name != "." {
		for element := range strings.SplitSeq(name, "/") {
			child := at.children[element]
			if child == nil {
				child = &seen{}
				if at.children == nil {
					at.children = map[string]*seen{}
				}
				at.children[element] = child
			}
			at = child
		}
	}
	change(at)
}

// doubt makes the record one of something that cannot be relied upon.
func (r *Reads) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubtful = true
}

// recorder is the files below the ignore rules.
type recorder struct{ reads *Reads }

func (r *recorder) Open(name string) (fs.File, error) {
	f, err := r.reads.source.Open(name)
	if err != nil {
		r.failed(name)
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return f, nil //nolint:nilerr // the reader of the file will see it
	}
	if info.IsDir() {
		entries, err := fs.ReadDir(r.reads.source, name)
		r.listed(name, entries, err)
	} else {
		r.content(name, func() string { return contentDigest(r.reads.source, name) })
	}
	return f, nil
}

func (r *recorder) Stat(name string) (fs.FileInfo, error) {
	info, err := fs.Stat(r.reads.source, name)
	if err != nil {
		r.failed(name)
		return nil, err
	}
	r.reads.note(name, func(s *seen) { s.kind = kindOfMode(info.Mode()) })
	return info, nil
}

func (r *recorder) ReadFile(name string) ([]byte, error) {
	data, err := fs.ReadFile(r.reads.source, name)
	if err != nil {
		r.failed(name)
		return nil, err
	}
	r.content(name, func() string { return digest(data) })
	return data, nil
}

func (r *recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.reads.source, name)
	r.listed(name, entries, err)
	return entries, err
}

// failed records what kept a path from being read.
func (r *recorder) failed(name string) {
	if !fs.ValidPath(name) {
		return
	}
	info, err := fs.Stat(r.reads.source, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.reads.note(name, func(s *seen) { s.kind = missing })
	case err != nil || info.Mode().IsRegular():
		r.reads.doubt()
	default:
		r.reads.note(name, func(s *seen) { s.kind = kindOfMode(info.Mode()) })
	}
}

func (r *recorder) content(name string, digest func() string) {
	whole := ""
	if _, ok := r.reads.source.(identified); !ok {
		whole = digest()
	}
	r.reads.note(name, func(s *seen) { s.kind, s.read, s.whole = file, true, whole })
}

func (r *recorder) listed(name string, entries []fs.DirEntry, err error) {
	if err != nil {
		if info, statErr := fs.Stat(r.reads.source, name); statErr == nil && info.IsDir() {
			r.reads.doubt()
		}
		r.failed(name)
		return
	}
	listing := listingDigest(entries)
	r.reads.note(name, func(s *seen) { s.kind, s.listing = directory, listing })
}
