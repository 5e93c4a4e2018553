package fat

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func example() *Volume {
	big := bytes.Repeat([]byte("0123456789"), 300000)
	v := &Volume{Size: 64 << 20, Label: "BOTHY-SEED", ID: 0x12345678, Time: time.Date(2026, 11, 22, 12, 34, 56, 0, time.UTC), Files: []File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Data: big},
		{Path: "bothy.yaml", Data: []byte("hello")},
		{Path: "images/blobs/sha256/" + strings.Repeat("a", 64), Data: []byte("a blob")},
		{Path: "images/blobs/sha256/" + strings.Repeat("a", 63) + "b", Data: big[:5000]},
		{Path: "empty", Data: nil},
	}}
	for i := range 100 { // a directory of several clusters
		v.Files = append(v.Files, File{Path: fmt.Sprintf("many/a rather long name, number %d", i), Data: []byte{byte(i)}})
	}
	return v
}

func write(t *testing.T, v *Volume) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "volume")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(v.Size); err != nil {
		t.Fatal(err)
	}
	if err := v.Write(f); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSameFilesSameBytes(t *testing.T) {
	var sums [2][32]byte
	for i := range sums {
		data, err := os.ReadFile(write(t, example()))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
	}
	if sums[0] != sums[1] {
		t.Error("two writes differ")
	}
}

func TestOthersFindNothingWrong(t *testing.T) {
	fsck, err := exec.LookPath("fsck.fat")
	if err != nil {
		t.Skip("fsck.fat is not installed")
	}
	out, err := exec.Command(fsck, "-n", "-v", write(t, example())).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, complaint := range []string{"differ", "Invalid", "wrong", "Bad", "uninitialized"} {
		if strings.Contains(string(out), complaint) {
			t.Errorf("fsck.fat complains:\n%s", out)
			break
		}
	}
}

func TestOthersReadTheFiles(t *testing.T) {
	mcopy, err := exec.LookPath("mcopy")
	if err != nil {
		t.Skip("mcopy is not installed")
	}
	v := example()
	volume, dir := write(t, v), t.TempDir()
	if out, err := exec.Command(mcopy, "-s", "-i", volume, "::*", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, f := range v.Files {
		got, err := os.ReadFile(filepath.Join(dir, f.Path))
		if err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s: %d bytes, %v", f.Path, len(got), err)
		}
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Volume){
		"small":    func(v *Volume) { v.Size = 1 << 20 },
		"label":    func(v *Volume) { v.Label = "a rather long label" },
		"full":     func(v *Volume) { v.Files[0].Data = make([]byte, v.Size) },
		"path":     func(v *Volume) { v.Files[0].Path = "../etc/passwd" },
		"absolute": func(v *Volume) { v.Files[0].Path = "/etc/passwd" },
		"name":     func(v *Volume) { v.Files[0].Path = "what?" },
		"twice":    func(v *Volume) { v.Files = append(v.Files, File{Path: "EFI/BOOT/BOOTX64.EFI"}) },
	} {
		v := example()
		change(v)
		f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := v.Write(f); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
