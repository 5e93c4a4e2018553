package nbd

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func disk(t *testing.T) (*Disk, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, bytes.Repeat([]byte{'o'}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, file
}

func content(t *testing.T, d *Disk, at int64, n int) string {
	t.Helper()
	p := make([]byte, n)
	if err := d.readAt(p, at); err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func TestWhatIsNotFlushedIsLost(t *testing.T) {
	d, _ := disk(t)
	for at, through := range map[int64]bool{10: false, 3 * blockSize: false, 5 * blockSize: true} {
		if err := d.writeAt([]byte("new"), at, through); err != nil {
			t.Fatal(err)
		}
		if got := content(t, d, at-1, 5); got != "onewo" {
			t.Errorf("at %d is %q", at, got)
		}
	}
	if cached, lost, err := d.Cut(0); cached != 2 || lost != 2 || err != nil {
		t.Error(cached, lost, err)
	}
	if d.writeAt([]byte("x"), 0, false) == nil || d.flush() == nil {
		t.Error("it is written without power")
	}
	for at, want := range map[int64]string{10: "ooo", 3 * blockSize: "ooo", 5 * blockSize: "new"} {
		if got := content(t, d, at, 3); got != want {
			t.Errorf("at %d is %q", at, got)
		}
	}
	d.On()
	if err := d.writeAt([]byte("new"), 10, false); err != nil {
		t.Fatal(err)
	}
	if err := d.flush(); err != nil || d.Flushes() != 1 {
		t.Fatal(err)
	}
	if cached, _, err := d.Cut(0); cached != 0 || err != nil || content(t, d, 10, 3) != "new" {
		t.Error("what was flushed is lost", err)
	}
}

// QEMU's own program speaks the protocol.
func TestQEMUUnderstands(t *testing.T) {
	program, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Skip("qemu-io is not installed")
	}
	d, _ := disk(t)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go d.Serve(l)
	out, err := exec.Command(program, "-f", "raw", "-t", "writeback",
		"-c", "read -P 0x6f 0 1M", "-c", "write -P 1 4096 8192", "-c", "flush", "-c", "write -P 2 512 512", "-c", "write -z 65536 4096", "-c", "read -P 1 4096 8192", "-c", "read -P 2 512 512", "nbd:unix:"+socket).CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") {
		t.Fatalf("%v: %s", err, out)
	}
	if d.Flushes() == 0 || content(t, d, 4096, 1) != "\x01" || content(t, d, 512, 1) != "\x02" || content(t, d, 65536, 1) != "\x00" {
		t.Errorf("not what was written: %s", out)
	}
}
