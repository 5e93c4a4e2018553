package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// entry is one of an archive.
type entry struct {
	name, content, link string
	kind                byte
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	w := tar.NewWriter(gz)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		if err := w.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(e.content)), Typeflag: e.kind, Linkname: e.link, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []interface{ Close() error }{w, gz} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestUnpack(t *testing.T) {
	data := archive(t,
		entry{name: "./", kind: tar.TypeDir},
		entry{name: "./a.yaml", content: "a"},
		entry{name: "dir/", kind: tar.TypeDir},
		entry{name: "dir/sub/b.yaml", content: "b"},
		entry{name: "dir/sub/empty"},
	)
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var uncompressed bytes.Buffer
	if _, err := uncompressed.ReadFrom(plain); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"compressed": data, "plain": uncompressed.Bytes()} {
		f, err := unpack(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := fstest.TestFS(f, "a.yaml", "dir/sub/b.yaml", "dir/sub/empty"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDs(t *testing.T) {
	of := func(name string, content map[string][]byte) string {
		f, err := newFiles(content)
		if err != nil {
			t.Fatal(err)
		}
		id, err := f.ID(name)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	base := map[string][]byte{"a/x": []byte("1"), "b/y": []byte("2")}
	other := map[string][]byte{"a/x": []byte("1"), "b/y": []byte("3")}
	if of("a", base) != of("a", other) || of("b", base) == of("b", other) || of(".", base) == of(".", other) {
		t.Error("ids do not follow content")
	}
	if of(".", map[string][]byte{"ab": nil}) == of(".", map[string][]byte{"a/b": nil}) {
		t.Error("a file and a directory have the same id")
	}
	f, _ := newFiles(base)
	if _, err := f.ID("c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestArchivesThatAreRefused(t *testing.T) {
	var many []entry
	for range maxEntries + 1 {
		many = append(many, entry{name: "x"})
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"out of the archive": {archive(t, entry{name: "../x"}), "leads out of the archive"},
		"out in the middle":  {archive(t, entry{name: "a/../../x"}), "leads out of the archive"},
		"absolute":           {archive(t, entry{name: "/etc/passwd"}), "is an absolute path"},
		"backslash":          {archive(t, entry{name: `a\..\x`}), "leads out of the archive"},
		"symbolic link":      {archive(t, entry{name: "x", link: "/etc/passwd", kind: tar.TypeSymlink}), "links are not followed"},
		"hard link":          {archive(t, entry{name: "x", link: "y", kind: tar.TypeLink}), "links are not followed"},
		"device":             {archive(t, entry{name: "x", kind: tar.TypeBlock}), "neither a file nor a directory"},
		"below a file":       {archive(t, entry{name: "x", content: "1"}, entry{name: "x/y", content: "2"}), "a file"},
		"deep":               {archive(t, entry{name: strings.Repeat("a/", maxDepth+1) + "x"}), "nested too deep"},
		"many files":         {archive(t, many...), "unpacks to more than"},
		"large file":         {archive(t, entry{name: "x", content: strings.Repeat("\x00", maxContent+1)}), "unpacks to more than"},
		"no archive":         {[]byte("text"), "is not a tar archive"},
		"broken compression": {archive(t, entry{name: "x", content: "abc"})[:20], "is not a tar archive"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := unpack(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzUnpack looks for archives that panic, or whose files are not where their
// names say.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, entry{name: "a/b", content: "x"}, entry{name: "../c", content: "y"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		unpacked, err := unpack(data)
		if err != nil {
			return
		}
		err = fs.WalkDir(unpacked, ".", func(name string, _ fs.DirEntry, err error) error {
			if !fs.ValidPath(name) {
				t.Errorf("path %q", name)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
