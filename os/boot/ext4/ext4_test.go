package ext4

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const size = 256 << 20

func device(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "device"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestABlankDeviceGetsAFileSystemOnce(t *testing.T) {
	f := device(t, size)
	if made, err := Prepare(f, size); err != nil || !made {
		t.Fatalf("%t, %v", made, err)
	}
	if made, err := Prepare(f, size); err != nil || made {
		t.Errorf("made again: %t, %v", made, err)
	}
}

func TestWhatIsOnADeviceStays(t *testing.T) {
	f := device(t, size)
	if _, err := f.WriteAt([]byte("precious"), 5000); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(f, size); !errors.Is(err, ErrNotBlank) {
		t.Errorf("%v", err)
	}
	if _, err := Prepare(device(t, 2<<20), 2<<20); err == nil {
		t.Error("a device that is too small is accepted")
	}
}

func TestOthersFindNothingWrong(t *testing.T) {
	e2fsck, err := exec.LookPath("e2fsck")
	if err != nil {
		t.Skip("e2fsck is not installed")
	}
	f := device(t, size)
	// What lay there before must not show through.
	if _, err := f.WriteAt(make([]byte, 1), size-1); err != nil {
		t.Fatal(err)
	}
	garbage := make([]byte, 60<<20)
	for i := range garbage {
		garbage[i] = 0xa5
	}
	if _, err := f.WriteAt(garbage, 4<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(f, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(e2fsck, "-f", "-n", f.Name()).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// When it makes a file system larger, the kernel keeps the share of reserved blocks in whole percent: less than one would be none.
func TestTheReserveGrows(t *testing.T) {
	f := device(t, size)
	if _, err := Prepare(f, size); err != nil {
		t.Fatal(err)
	}
	counts := make([]byte, 12)
	if _, err := f.ReadAt(counts, superblockAt); err != nil {
		t.Fatal(err)
	}
	blocks, reserved := binary.LittleEndian.Uint32(counts[4:]), binary.LittleEndian.Uint32(counts[8:])
	if percent := reserved * 100 / blocks; percent != 3 {
		t.Errorf("%d of %d blocks are reserved, %d %%", reserved, blocks, percent)
	}
}
