package rootfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

// WriteDisk makes file an ext4 disk with the content of the tree and room for
// freeMiB more.
func (t *Tree) WriteDisk(ctx context.Context, file string, freeMiB int) error {
	bytes, files, err := t.size()
	if err != nil {
		return fmt.Errorf("measure the tree: %w", err)
	}
	// Inodes, bitmaps and the journal take their share.
	const perFile, overhead = 4 << 10, 64
	mib := int((bytes+int64(files)*perFile)*11/10>>20) + overhead + freeMiB
	return MakeExt4(ctx, file, mib, "-d", t.dir)
}

// MakeExt4 makes file an ext4 disk; args are further arguments of mke2fs.
func MakeExt4(ctx context.Context, file string, sizeMiB int, args ...string) error {
	if err := MakeBlank(file, sizeMiB); err != nil {
		return err
	}
	args = append([]string{"-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard"}, args...)
	out, err := exec.CommandContext(ctx, "mke2fs", append(args, file, strconv.Itoa(sizeMiB)+"M")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make an ext4 disk: mke2fs: %w: %s", err, out)
	}
	return nil
}

// MakeBlank makes file an empty disk, which takes no space until it is written to.
func MakeBlank(file string, sizeMiB int) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := f.Truncate(int64(sizeMiB) << 20); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
