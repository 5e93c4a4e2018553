package runtime

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStaleSocketIsRemovedAndALiveOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := removeStaleSocket(path); err != nil {
		t.Errorf("no socket at all: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := removeStaleSocket(path); err == nil || !strings.Contains(err.Error(), "another containerd") {
		t.Errorf("live socket: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as kill -9 leaves it
	l.Close()
	if err := removeStaleSocket(path); err != nil {
		t.Errorf("stale socket: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the stale socket is still there: %v", err)
	}
}

func TestMissingRuncIsExplained(t *testing.T) {
	dir := t.TempDir()
	err := checkExecutable(filepath.Join(dir, "runc"))
	if err == nil || !strings.Contains(err.Error(), "beside the bothy program") {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "runc"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkExecutable(filepath.Join(dir, "runc")); err == nil || !strings.Contains(err.Error(), "not executable") {
		t.Errorf("not executable: %v", err)
	}
}

func TestPathIsPrependedOnce(t *testing.T) {
	t.Setenv("PATH", "/usr/bin")
	for range 2 {
		if err := prependPath("/opt/bothy"); err != nil {
			t.Fatal(err)
		}
	}
	if got := os.Getenv("PATH"); got != "/opt/bothy:/usr/bin" {
		t.Errorf("PATH is %s", got)
	}
}
