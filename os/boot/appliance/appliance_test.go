package appliance

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/boot/modules"
	"github.com/bothy-os/bothy/os/gpt"
)

func TestTheCommandLineNamesTheRoot(t *testing.T) {
	hash := strings.Repeat("0123456789abcdef", 4)
	args, err := parseRootArgs("panic=5 bothy.root=" + hash + " bothy.blocks=4242 console=tty0\n")
	if err != nil || args.hash.String() != hash || args.blocks != 4242 {
		t.Errorf("%+v, %v", args, err)
	}
	for _, bad := range []string{"", "bothy.blocks=1", "bothy.root=" + hash, "bothy.root=12 bothy.blocks=1", "bothy.root=" + hash + " bothy.blocks=many"} {
		if _, err := parseRootArgs(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestRecordsOfTheKernelsLogHavePriorities(t *testing.T) {
	var out bytes.Buffer
	k := &kmsg{&out, "bothy-init"}
	log := slog.New(slog.NewTextHandler(k, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	log.Info("one")
	log.Error("two")
	if got, want := out.String(), "<6>bothy-init: level=INFO msg=one\n<3>bothy-init: level=ERROR msg=two\n"; got != want {
		t.Errorf("%q", got)
	}
}

func TestTheDataPartitionGrowsToTheEndOfTheDisk(t *testing.T) {
	const small, large = 64 << 20, 8<<30 + 12345*512
	file := filepath.Join(t.TempDir(), "disk")
	disk, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	table := &gpt.Table{Disk: gpt.DeriveGUID("disk"), Partitions: []gpt.Partition{
		{Type: gpt.TypeESP, GUID: gpt.DeriveGUID("esp"), First: 2048, Last: 4095, Name: disks.ESP},
		{Type: gpt.TypeLinux, GUID: gpt.DeriveGUID("data"), First: 4096, Last: 8191, Name: disks.Data},
	}}
	if err := errors.Join(disk.Truncate(small), table.Write(disk, small), disk.Truncate(large)); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	// The kernel does not take a file for a disk: what was written is what counts.
	if _, err := growPartition(log, disks.Partition{Disk: file, Index: "2"}); err == nil || !strings.Contains(err.Error(), "tell the kernel") {
		t.Errorf("%v", err)
	}
	grown, err := gpt.Read(disk, large)
	if err != nil {
		t.Fatal(err)
	}
	last := grown.Partitions[1]
	if rest := int64(large) - last.Offset() - last.Size(); rest < 0 || rest > 2<<20 || last.First != 4096 {
		t.Errorf("%+v leaves %d bytes", last, rest)
	}
	if size, err := growPartition(log, disks.Partition{Disk: file, Index: "2"}); err != nil || size != last.Size() {
		t.Errorf("growing again: %d, %v", size, err)
	}
	if _, err := growPartition(log, disks.Partition{Disk: file, Index: "1"}); err == nil {
		t.Error("a partition in the middle grows")
	}
}

func TestTheProgramIsWhatItIsCalled(t *testing.T) {
	stdin := strings.NewReader("{}")
	for _, args := range [][]string{{"/sbin/modprobe"}, {"/sbin/modprobe", "-q"}} {
		if err := dispatch(args, stdin); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"/bin/mount"}, "what to mount"},
		{[]string{"/bin/umount"}, "what to unmount"},
		{[]string{"/opt/bothy/bothy-init"}, "process 1"},
		{[]string{"/init"}, "process 1"}, // not in an initramfs, where it would be process 1
	} {
		if err := dispatch(c.args, io.Reader(stdin)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	if err := dispatch([]string{"modprobe", "-q", "no_such_module"}, stdin); !errors.Is(err, modules.ErrUnknown) {
		t.Errorf("%v", err)
	}
}
