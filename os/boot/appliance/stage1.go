package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot/devmapper"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/boot/modules"
	"github.com/bothy-os/bothy/os/verity"
)

const (
	// stage1Name is what the kernel calls the program in an initramfs.
	stage1Name = "/init"
	newRoot    = "/root"
	mappedRoot = "bothy-root"
	// rootLimit is how long a disk may take to appear. Slow controllers take half a
	// minute; a machine that is emulated takes longer for everything.
	rootLimit = 3 * time.Minute
)

// rootArgs is what the command line says about the root file system.
type rootArgs struct {
	hash   verity.Hash
	blocks uint64
}

func runStage1() error {
	for _, m := range []struct{ fstype, dir string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(m.fstype, m.dir, m.fstype, unix.MS_NOSUID, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	log := newLog("bothy-stage1")
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	args, err := parseRootArgs(string(text))
	if err != nil {
		return err
	}
	device, err := openRoot(log, args)
	if err != nil {
		return err
	}
	if err := unix.Mount(device, newRoot, "erofs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	return switchRoot()
}

func parseRootArgs(commandLine string) (args rootArgs, err error) {
	for field := range strings.FieldsSeq(commandLine) {
		key, value, _ := strings.Cut(field, "=")
		var bad error
		switch key {
		case "bothy.root":
			args.hash, bad = verity.ParseHash(value)
		case "bothy.blocks":
			args.blocks, bad = strconv.ParseUint(value, 10, 64)
		}
		if bad != nil {
			return args, fmt.Errorf("the kernel's command line: %s: %w", key, bad)
		}
	}
	if args.hash == (verity.Hash{}) || args.blocks == 0 {
		return args, errors.New("the kernel's command line has no bothy.root and bothy.blocks: this kernel was not started from a boot file of bothy")
	}
	return args, nil
}

// openRoot waits for a partition with the root file system and returns the device that
// checks what is read from it.
func openRoot(log *slog.Logger, args rootArgs) (string, error) {
	set, err := modules.Open()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), rootLimit)
	defer cancel()
	changed, err := set.Watch(ctx)
	if err != nil {
		return "", err
	}
	if err := set.Load("dm_mod", "dm_verity", "erofs"); err != nil {
		log.Error("what the root file system needs was not loaded", "err", err)
	}
	_ = set.Load("sha256_ssse3") // faster, where the processor can do it
	if err := set.LoadHardware(); err != nil {
		log.Warn("some drivers were not loaded", "err", err)
	}
	var last error
	for {
		p, sb, err := findRoot(args)
		if err != nil {
			p, sb, err = findMedium(args, err)
		}
		if err == nil {
			log.Info("found the root file system", "partition", p.Name, "device", p.Device)
			return devmapper.CreateReadOnly(mappedRoot, "verity", sb.Table(p.Number, args.hash), int64(sb.Blocks)*verity.BlockSize)
		}
		last = err
		if _, ok := <-changed; !ok {
			return "", fmt.Errorf("no root file system within %s: %w", rootLimit, last)
		}
	}
}

// findRoot looks into every slot there is. A slot with another root file system is the
// one that is not to be started.
func findRoot(args rootArgs) (disks.Partition, *verity.Superblock, error) {
	var errs []error
	for _, p := range installedFirst(disks.Partitions(disks.RootA, disks.RootB), disks.Partitions(disks.Data)) {
		sb, err := readSuperblock(p.Device, args)
		if err == nil {
			return p, sb, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", p.Device, err))
	}
	if len(errs) == 0 {
		return disks.Partition{}, nil, fmt.Errorf("no disk has a partition %s or %s", disks.RootA, disks.RootB)
	}
	return disks.Partition{}, nil, errors.Join(errs...)
}

func readSuperblock(device string, args rootArgs) (*verity.Superblock, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return verity.Find(f, args.blocks, args.hash)
}

// switchRoot makes the mounted file system the root and goes on there. The initramfs is
// memory until its files are gone.
func switchRoot() error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	for _, name := range []string{"/init", "/sbin", "/lib"} {
		_ = os.RemoveAll(name) // costs memory, no more
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	program := filepath.Join(binDir, initName)
	return fmt.Errorf("start %s: %w", program, unix.Exec(program, []string{program}, []string{}))
}
