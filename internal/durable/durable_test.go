package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "file")
	for _, text := range []string{"first and longer", "second"} {
		if err := WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Fatalf("%q %v", got, err)
		}
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("temporary files stayed: %v", entries)
	}
}

func TestFailedWriteKeepsTheOldContent(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(target, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(target, []byte("x"), 0o600); err == nil { // a directory cannot be replaced
		t.Fatal("no error")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestWriteFileIfChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for i, c := range []struct {
		text  string
		perm  fs.FileMode
		wrote bool
	}{{"a", 0o600, true}, {"a", 0o600, false}, {"b", 0o600, true}, {"b", 0o644, true}} {
		wrote, err := WriteFileIfChanged(path, []byte(c.text), c.perm)
		if err != nil || wrote != c.wrote {
			t.Errorf("%d: wrote %v, %v", i, wrote, err)
		}
	}
}

func TestJSONRoundTripAndRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.json")
	if err := ReadJSON(path, new(int)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := WriteJSON(path, map[string]int{"a": 1}, 0o600); err != nil {
		t.Fatal(err)
	}
	var v map[string]int
	if err := ReadJSON(path, &v); err != nil || v["a"] != 1 {
		t.Errorf("%v %v", v, err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func TestCopyFileReplacesWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, content := range []string{"a longer content", "short"} {
		if err := os.WriteFile(from, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CopyFile(from, to, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(to); err != nil || string(got) != content {
			t.Errorf("copied %q, %v; want %q", got, err, content)
		}
	}
	if err := CopyFile(filepath.Join(dir, "missing"), to, 0o600); err == nil {
		t.Error("a file that is not there was copied")
	}
}
