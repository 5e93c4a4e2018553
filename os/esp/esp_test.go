package esp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/os/cuttest"
	"github.com/bothy-os/bothy/os/image/fat"
)

const (
	bootFile = "EFI/BOOT/BOOTX64.EFI"
	nextFile = "EFI/BOTHY/NEXT.EFI"
	other    = "a file with a long name.txt"
)

type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// volume is a file system as the image builder makes it.
func volume(t *testing.T, old []byte) []byte {
	t.Helper()
	m := make(memory, 40<<20)
	v := &fat.Volume{Size: int64(len(m)), Label: "BOTHY-ESP", ID: 1, Time: time.Now(), Files: []fat.File{{Path: bootFile, Data: old}, {Path: other, Data: []byte("other")}}}
	if err := v.Write(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t *testing.T, d Disk) *Volume {
	t.Helper()
	v, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func check(t *testing.T, d Disk, path string, want ...[]byte) {
	t.Helper()
	got, err := open(t, d).ReadFile(path)
	for _, w := range want {
		if w == nil && errors.Is(err, fs.ErrNotExist) || err == nil && w != nil && bytes.Equal(got, w) {
			return
		}
	}
	t.Fatalf("%s has %d bytes that nobody wrote, %v", path, len(got), err)
}

func fsck(t *testing.T, d *cuttest.Disk) {
	t.Helper()
	program, err := exec.LookPath("fsck.fat")
	if err != nil {
		return
	}
	file := filepath.Join(t.TempDir(), "esp")
	data, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "-n", "-v", file).CombinedOutput(); err != nil {
		t.Fatalf("fsck.fat: %v\n%s", err, out)
	}
}

func TestReplaceAndRemove(t *testing.T) {
	old, next := noise(300_001), noise(700_003)
	d := cuttest.New(nil, volume(t, old))
	check(t, d, bootFile, old)
	check(t, d, strings.ToLower(other), []byte("other"))
	check(t, d, nextFile, nil)
	for _, step := range []struct {
		path string
		data []byte
	}{{nextFile, next}, {bootFile, next}, {nextFile, old}, {"TOP.TXT", []byte("x")}, {"TOP.TXT", nil}, {bootFile, next}} {
		if err := open(t, d).Replace(step.path, step.data); err != nil {
			t.Fatal(err)
		}
		if step.data == nil {
			step.data = []byte{}
		}
		check(t, d, step.path, step.data)
		check(t, d, other, []byte("other"))
		fsck(t, d)
	}
	for _, path := range []string{nextFile, other, nextFile, "NO/SUCH.EFI"} {
		if err := open(t, d).Remove(path); err != nil {
			t.Fatal(err)
		}
		check(t, d, path, nil)
		fsck(t, d)
	}
	check(t, d, bootFile, next)
}

func TestDirectoriesGrow(t *testing.T) {
	d := cuttest.New(nil, volume(t, []byte("old")))
	for i := range 200 {
		if err := open(t, d).Replace(fmt.Sprintf("MANY/F%d", i), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		check(t, d, fmt.Sprintf("MANY/F%d", i), []byte{byte(i)})
	}
	fsck(t, d)
}

// Whatever of the last writes has arrived, each file is as before or as it is to be, and the
// change can be made again.
func TestEveryCutLeavesOldOrNew(t *testing.T) {
	old, next := noise(100_000), noise(150_000)
	image := volume(t, old)
	change := func(d Disk) error {
		v, err := Open(d)
		if err != nil {
			return err
		}
		return errors.Join(v.Replace(nextFile, next), v.Replace(bootFile, next), v.Remove(nextFile))
	}
	whole := cuttest.NewPower(-1)
	if err := change(cuttest.New(whole, image)); err != nil {
		t.Fatal(err)
	}
	if whole.Steps < 20 {
		t.Fatalf("the change takes %d steps: nothing is tested", whole.Steps)
	}
	seenNew := false
	for cut := range whole.Steps {
		for _, chance := range []float64{0, 0.3, 0.7, 1} {
			d := cuttest.New(cuttest.NewPower(cut), image)
			if err := change(d); !errors.Is(err, cuttest.ErrCut) {
				t.Fatalf("cut %d: %v", cut, err)
			}
			after := d.AfterCut(nil, chance)
			check(t, after, bootFile, old, next)
			check(t, after, nextFile, nil, next)
			check(t, after, other, []byte("other"))
			got, _ := open(t, after).ReadFile(bootFile)
			if bytes.Equal(got, next) {
				seenNew = true
			} else if seenNew && chance == 1 {
				t.Fatalf("cut %d: the old content is back", cut)
			}
			if err := change(after); err != nil {
				t.Fatalf("again after cut %d: %v", cut, err)
			}
			check(t, after, bootFile, next)
			check(t, after, nextFile, nil)
		}
	}
	if !seenNew {
		t.Error("no cut came after the change")
	}
}

func TestWhatDoesNotFitChangesNothing(t *testing.T) {
	d := cuttest.New(nil, volume(t, []byte("old")))
	err := open(t, d).Replace(bootFile, make([]byte, 40<<20))
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%v", err)
	}
	check(t, d, bootFile, []byte("old"))
	for name, path := range map[string]string{"long": "EFI/BOOT/much too long.efi", "a file as directory": bootFile + "/X"} {
		if err := open(t, d).Replace(path, []byte("x")); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := open(t, d).Replace("EFI/BOOT", []byte("x")); err == nil {
		t.Error("a directory was replaced by a file")
	}
	fsck(t, d)
}

func TestOtherFileSystemsAreRefused(t *testing.T) {
	if _, err := Open(cuttest.New(nil, make([]byte, 1<<20))); err == nil {
		t.Error("a blank disk is a file system")
	}
	image := volume(t, []byte("old"))
	image[13] = 0
	if _, err := Open(cuttest.New(nil, image)); err == nil {
		t.Error("clusters have no size")
	}
}
