package initramfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// entries reads an archive by the description of the format, not by our code.
func entries(t *testing.T, data []byte) map[string]string {
	t.Helper()
	field := func(at, index int) int {
		n, err := strconv.ParseInt(string(data[at+6+8*index:at+14+8*index]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	out := map[string]string{}
	for at := 0; ; {
		if at%4 != 0 || string(data[at:at+6]) != "070701" {
			t.Fatalf("no header at %d: %q", at, data[at:at+6])
		}
		mode, size, nameSize := field(at, 1), field(at, 6), field(at, 11)
		name := string(data[at+110 : at+110+nameSize-1])
		if name == "TRAILER!!!" {
			return out
		}
		content := (at + 110 + nameSize + 3) / 4 * 4
		out[name] = fmt.Sprintf("%o %s", mode, data[content:content+size])
		at = (content + size + 3) / 4 * 4
	}
}

func TestArchiveHoldsWhatWasAdded(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	a := NewArchive(&buf)
	a.Mkdir("/etc", 0o755)
	a.Write("/etc/odd", []byte("12345"), 0o644)
	a.Write("/empty", nil, 0o600)
	a.Add("/init", script)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	got := entries(t, buf.Bytes())
	for name, want := range map[string]string{
		"etc": "40755 ", "etc/odd": "100644 12345", "empty": "100600 ", "init": "100755 #!/bin/sh\n",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("entries: %v", got)
	}
}

func TestArchiveTellsOfAMissingFile(t *testing.T) {
	a := NewArchive(&bytes.Buffer{})
	a.Add("/init", filepath.Join(t.TempDir(), "missing"))
	a.Write("/other", nil, 0o644)
	if err := a.Close(); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}
