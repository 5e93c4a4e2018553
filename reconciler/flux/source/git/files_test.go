package git

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
)

func files(names ...string) fstest.MapFS {
	out := fstest.MapFS{}
	for _, name := range names {
		out[name] = &fstest.MapFile{Data: []byte(name)}
	}
	return out
}

func TestSparseShowsTheDirectoriesAndWhatLeadsThere(t *testing.T) {
	s := newSparse(files("a/b/one", "a/c/two", "d/three", "four"), []string{"./a/b/", "d"})
	if err := fstest.TestFS(s, "a/b/one", "d/three"); err != nil {
		t.Error(err)
	}
	for _, hidden := range []string{"four", "a/c", "a/c/two"} {
		if _, err := s.Open(hidden); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s can be opened: %v", hidden, err)
		}
	}
	if entries, err := s.ReadDir("."); err != nil || len(entries) != 2 {
		t.Errorf("the root lists %v, %v", entries, err)
	}
}

func TestOverlayShowsMountsInPlaceOfTheBase(t *testing.T) {
	o := &overlay{base: files("a/base", "x/hidden"), mounts: []mount{
		{at: "a/lib", files: files("inner/one"), from: "inner"},
		{at: "x", files: files("two"), from: "."},
		{at: "new/deep", files: files("three"), from: "."},
	}}
	if err := fstest.TestFS(o, "a/base", "a/lib/one", "x/two", "new/deep/three"); err != nil {
		t.Error(err)
	}
	if _, err := o.Open("x/hidden"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a mount covers can be opened: %v", err)
	}
}

// identifiedFS gives every path an id of its own.
type identifiedFS struct {
	fs.FS
	mark string
}

func (f identifiedFS) ID(name string) (string, error) {
	if _, err := fs.Stat(f.FS, name); err != nil {
		return "", err
	}
	return f.mark + name, nil
}

func TestOverlayIdentifiesWhatItShows(t *testing.T) {
	with := func(mark string) *overlay {
		return &overlay{base: identifiedFS{files("a/base", "b/other"), "base "}, mounts: []mount{{at: "a/lib", files: identifiedFS{files("one"), mark}, from: "."}}}
	}
	before, after := with("1 "), with("2 ")
	for name, same := range map[string]bool{"b/other": true, "a/base": true, "a/lib/one": false, "a": false, ".": false} {
		x, err := before.ID(name)
		if err != nil {
			t.Fatal(err)
		}
		if y, _ := after.ID(name); (x == y) != same {
			t.Errorf("the ids of %s: %q, %q; want same = %v", name, x, y, same)
		}
	}
}
