package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/image/fat"
	"github.com/bothy-os/bothy/os/verity"
)

// image makes files as the image builder leaves them, with very little in them.
func image(t *testing.T) *Source {
	t.Helper()
	name := filepath.Join(t.TempDir(), "bothy")
	data := bytes.Repeat([]byte("root file system"), 200*verity.BlockSize/16)
	var tree bytes.Buffer
	hash, err := verity.Append(&tree, data, []byte("salt"), [16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	blocks := len(data) / verity.BlockSize
	manifest, err := json.Marshal(map[string]any{"rootHash": hash.String(), "blocks": blocks})
	if err != nil {
		t.Fatal(err)
	}
	boot := []byte(fmt.Sprintf("MZ boot file, bothy.root=%s bothy.blocks=%d ", hash, blocks) + strings.Repeat("kernel ", 100000))
	for ending, content := range map[string][]byte{".root": append(data, tree.Bytes()...), ".efi": boot, ".json": manifest} {
		if err := os.WriteFile(name+ending, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Image(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if got := int64(len(data) + tree.Len()); s.RootSize != got {
		t.Fatalf("the root file system has %d bytes, %d were made", s.RootSize, got)
	}
	return s
}

const size = MinSize + 512*mib

func blankDisk(t *testing.T) *disks.Disk {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	return &disks.Disk{Device: file, Size: size, SectorSize: 512}
}

func installed(t *testing.T, d *disks.Disk, s *Source) error {
	t.Helper()
	f, err := os.Open(d.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, size)
	if err != nil {
		return err
	}
	parts := map[string]*io.SectionReader{}
	for _, p := range table.Partitions {
		parts[p.Name] = io.NewSectionReader(f, p.Offset(), p.Size())
	}
	boot, err := fat.ReadFile(parts[disks.ESP], BootFile)
	if err != nil || !bytes.Equal(boot, s.BootFile) {
		t.Fatalf("there is a partition table, but the boot file is not whole: %v", err)
	}
	want, got := make([]byte, s.RootSize), make([]byte, s.RootSize)
	_, errWant := s.Root.ReadAt(want, 0)
	_, errGot := parts[disks.RootA].ReadAt(got, 0)
	if errWant != nil || errGot != nil || !bytes.Equal(got, want) {
		t.Fatalf("there is a partition table, but the root file system is not whole: %v %v", errWant, errGot)
	}
	if parts[disks.RootB] == nil || parts[disks.Data].Size() < DataSize+500*mib {
		t.Errorf("partitions %+v", table.Partitions)
	}
	return nil
}

func TestASystemIsInstalled(t *testing.T) {
	d, s := blankDisk(t), image(t)
	var percents []int
	var prepared int64
	opts := Options{
		Time: time.Unix(1<<30, 0), Files: map[string][]byte{"boot.yaml": []byte("x")}, Progress: func(p int) { percents = append(percents, p) },
		prepare: func(_ string, offset, size int64, _ *Options) error { prepared = offset + size; return nil },
	}
	if err := Disk(t.Context(), d, s, opts); err != nil {
		t.Fatal(err)
	}
	if err := installed(t, d, s); err != nil {
		t.Error(err)
	}
	if len(percents) < 2 || percents[len(percents)-1] != 100 || prepared == 0 || prepared > size {
		t.Errorf("progress %v, data up to byte %d", percents, prepared)
	}
	// It is not blank any more, and is not touched without being told so.
	if err := Disk(t.Context(), d, s, opts); !errors.Is(err, ErrNotBlank) {
		t.Errorf("%v", err)
	}
	opts.Overwrite = true
	if err := Disk(t.Context(), d, s, opts); err != nil {
		t.Error(err)
	}
}

// Nobody has to come and say overwrite because the power went.
func TestAnInterruptedInstallationIsTakenUpAgain(t *testing.T) {
	d, s := blankDisk(t), image(t)
	for _, writes := range []int{2, 6, 20, 50, 80} {
		f, err := os.OpenFile(d.Device, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		power := &cut{File: f, writes: writes}
		if err := Disk(t.Context(), d, s, Options{device: power}); !errors.Is(err, errPower) {
			t.Fatalf("after %d writes: %v", writes, err)
		}
		if err := errors.Join(power.lose(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := Disk(t.Context(), d, s, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := installed(t, d, s); err != nil {
		t.Error(err)
	}
}

// cut is a disk whose power goes after so many writes: those since the last Sync are lost.
type cut struct {
	*os.File
	writes int
	// undo restores what was there, newest last.
	undo []func() error
}

var errPower = errors.New("the power is gone")

func (c *cut) WriteAt(p []byte, at int64) (int, error) {
	if c.writes--; c.writes < 0 {
		return 0, errPower
	}
	old := make([]byte, len(p))
	if _, err := c.File.ReadAt(old, at); err != nil {
		return 0, err
	}
	c.undo = append(c.undo, func() error { _, err := c.File.WriteAt(old, at); return err })
	return c.File.WriteAt(p, at)
}

func (c *cut) Sync() error {
	if c.writes--; c.writes < 0 {
		return errPower
	}
	c.undo = nil
	return nil
}

// lose forgets every other write since the last Sync: a disk may have any of them.
func (c *cut) lose() error {
	var errs []error
	for i := len(c.undo) - 1; i >= 0; i-- {
		if i%2 == 0 {
			errs = append(errs, c.undo[i]())
		}
	}
	return errors.Join(errs...)
}

// A disk that held a system before has the whole new one or none, wherever the power went.
func TestAPowerCutLeavesNothingThatPretends(t *testing.T) {
	d, s := blankDisk(t), image(t)
	whole := false
	for writes := 0; !whole; writes++ {
		if writes > 1000 {
			t.Fatal("the installation has no end")
		}
		f, err := os.OpenFile(d.Device, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		power := &cut{File: f, writes: writes}
		err = Disk(t.Context(), d, s, Options{Overwrite: true, Time: time.Unix(1<<30, 0), device: power})
		if whole = err == nil; !whole && !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		if err := errors.Join(power.lose(), f.Close()); err != nil {
			t.Fatal(err)
		}
		// What a reader of partition tables makes of it: nothing, or all.
		if err := installed(t, d, s); whole && err != nil {
			t.Fatalf("after %d writes: %v", writes, err)
		}
	}
}

func TestDisksThatAreNotMeantAreNotTouched(t *testing.T) {
	s := image(t)
	inUse, medium, foreign := blankDisk(t), blankDisk(t), blankDisk(t)
	inUse.InUse = "mounted on /var/lib/bothy"
	s.Device = medium.Device
	f, err := os.OpenFile(foreign.Device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("a RAID's record"), size-8192); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for want, d := range map[string]*disks.Disk{"mounted on": inUse, "started from": medium, "something on": foreign} {
		if err := Disk(t.Context(), d, s, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if d != foreign {
			continue
		}
		if err := installed(t, d, s); !errors.Is(err, gpt.ErrNone) {
			t.Error("it was written to")
		}
	}
}

func TestTheDiskThatIsMeantIsChosen(t *testing.T) {
	all := []disks.Disk{
		{Device: "/dev/sda", Size: 500 << 30, Serial: "A", Model: "Big", SectorSize: 512},
		{Device: "/dev/sdb", Size: 32 << 30, Serial: "B", Model: "Small", SectorSize: 512},
		{Device: "/dev/sdc", Size: 64 << 30, Serial: "C", Removable: true, SectorSize: 512},
		{Device: "/dev/sdd", Size: 64 << 30, Serial: "D", InUse: "the system runs from it", SectorSize: 512},
		{Device: "/dev/sde", Size: 64 << 30, Serial: "E", SectorSize: 4096},
	}
	for _, c := range []struct {
		name string
		s    v1alpha1.DiskSelector
		want string
	}{
		{"any", v1alpha1.DiskSelector{}, "2 disks fit, say which one"},
		{"serial", v1alpha1.DiskSelector{Serial: "B"}, "/dev/sdb"},
		{"stick by serial", v1alpha1.DiskSelector{Serial: "C"}, "/dev/sdc"},
		{"path", v1alpha1.DiskSelector{Path: "/dev/sda"}, "/dev/sda"},
		{"model", v1alpha1.DiskSelector{Model: "Small"}, "/dev/sdb"},
		{"smallest", v1alpha1.DiskSelector{Pick: "smallest"}, "/dev/sdb"},
		{"largest", v1alpha1.DiskSelector{Pick: "largest"}, "/dev/sda"},
		{"size", v1alpha1.DiskSelector{MinGiB: 100}, "/dev/sda"},
		{"too large", v1alpha1.DiskSelector{MinGiB: 1000}, "no disk fits; there is /dev/sda (500.0 GiB, Big, serial A), of another size"},
		{"the medium", v1alpha1.DiskSelector{Serial: "D"}, "the system runs from it"},
		{"sectors", v1alpha1.DiskSelector{Serial: "E"}, "sectors of 4096 bytes"},
	} {
		got, err := Choose(all, &c.s)
		if text := fmt.Sprint(err); err == nil && got.Device != c.want || err != nil && !strings.Contains(text, c.want) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	twins := []disks.Disk{{Device: "/dev/sda", Size: 64 << 30}, {Device: "/dev/sdb", Size: 64 << 30}}
	if d, err := Choose(twins, &v1alpha1.DiskSelector{Pick: "smallest"}); err == nil {
		t.Errorf("%s is chosen of two that are alike", d.Device)
	}
}

func TestAnImageIsOfOnePiece(t *testing.T) {
	a, b := image(t), image(t)
	name := strings.TrimSuffix(a.file.Name(), ".root")
	if err := os.WriteFile(name+".efi", []byte("MZ, bothy.root=0000"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Image(name); err == nil {
		t.Errorf("a boot file for another root file system is taken: %+v", s)
	}
	if _, err := Image(strings.TrimSuffix(b.file.Name(), ".root") + "x"); err == nil || !strings.Contains(err.Error(), "bothy os build") {
		t.Errorf("%v", err)
	}
}

// The first files of the data partition are on a file system that the kernel can mount.
func TestTheDataPartitionHasItsFirstFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: a file system cannot be mounted")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("this machine has no loop devices")
	}
	d, from := blankDisk(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "key"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := &Options{Files: map[string][]byte{"boot.yaml": []byte("config"), "os/x": []byte("y")}, FileTrees: map[string]string{"seed": from}}
	table := Table(size, fresh)
	data := table.Partitions[dataPart]
	if err := prepareData(d.Device, data.Offset(), data.Size(), opts); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
		t.Skipf("this kernel has no quotas, and cannot mount the file system: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	// What was written is found once more, and the rest is left alone.
	seen := 0
	opts = &Options{Files: map[string][]byte{"again": nil}}
	if err := prepareData(d.Device, data.Offset(), data.Size(), opts); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(d.Device)
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"config", "secret"} {
		if bytes.Contains(raw, []byte(words)) {
			seen++
		}
	}
	if seen != 2 || len(bytes.Trim(raw[:data.Offset()], "\x00")) > 0 {
		t.Errorf("%d of 2 files are there", seen)
	}
}
