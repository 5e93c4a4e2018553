package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestSharedFilesAreNeverWrittenTo(t *testing.T) {
	dir := t.TempDir()
	original := filepath.Join(dir, "original")
	if err := os.WriteFile(original, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := NewTree(filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Add("/a/file", original); err != nil {
		t.Fatal(err)
	}
	if err := tree.Write("/a/file", []byte("other"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	if data, _ := os.ReadFile(original); string(data) != "mine" {
		t.Errorf("the original reads %q", data)
	}
}

// A program runs in the tree alone if all its libraries came along.
func TestProgramsBringTheirLibraries(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for chroot")
	}
	tree, err := NewTree(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Symlink("/bin/ls", "/nowhere"); err != nil { // what is there is replaced
		t.Fatal(err)
	}
	if err := tree.AddProgram("/bin/ls", "ls"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "chroot", tree.Host("/"), "/bin/ls", "/bin").CombinedOutput(); err != nil || string(out) != "ls\n" {
		t.Errorf("%v: %s", err, out)
	}
}
