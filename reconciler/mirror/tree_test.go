package mirror

import (
	"errors"
	"strings"
	"testing"
)

var treeID = strings.Repeat("\x01", 20)

func line(mode, name string) string { return mode + " " + name + "\x00" + treeID }

func TestParseTree(t *testing.T) {
	// git sorts "dir/" after "dir.txt".
	good := line("100644", "a") + line("100644", "dir.txt") + line("40000", "dir") + line("120000", "link") + line("160000", "sub")
	entries, err := parseTree([]byte(good))
	if err != nil || len(entries) != 5 {
		t.Fatalf("%v, %v", entries, err)
	}
	for name, bad := range map[string]string{
		"parent directory": line("100644", ".."),
		"this directory":   line("100644", "."),
		"empty name":       line("100644", ""),
		"slash":            line("100644", "a/b"),
		"backslash":        line("100644", `a\b`),
		".git":             line("40000", ".git"),
		".GIT":             line("40000", ".GIT"),
		"twice":            line("100644", "a") + line("100644", "a"),
		"file and dir":     line("100644", "a") + line("40000", "a"),
		"out of order":     line("100644", "b") + line("100644", "a"),
		"odd mode":         line("100666", "a"),
		"padded mode":      line("040000", "a"),
		"cut off":          line("100644", "a")[:20],
		"no mode":          "a\x00" + treeID,
	} {
		if entries, err := parseTree([]byte(bad)); !errors.Is(err, ErrMalformedTree) {
			t.Errorf("%s: %v, %v", name, entries, err)
		}
	}
}

// FuzzParseTree looks for input that panics, or that yields a name which could
// lead out of the directory.
func FuzzParseTree(f *testing.F) {
	f.Add([]byte(line("100644", "a") + line("40000", "dir")))
	f.Add([]byte(line("100644", "..")))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseTree(data)
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") || len(e.ID) != 40 {
				t.Errorf("entry %+v", e)
			}
		}
	})
}
