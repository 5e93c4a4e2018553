// Package ext4 makes file systems without mke2fs: it writes a small empty one that is part
// of the program, and has the kernel grow it while it is mounted.
//
// The template in template.gz is a list of the blocks of the file system that are not
// zero; `go generate` makes it anew with mke2fs.
package ext4

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:generate go run ./generate template.gz

//go:embed template.gz
var template []byte

// BlockSize of the file systems that are made, in bytes.
const BlockSize = 4096

// TemplateSize is how large a file system is before it grows.
const TemplateSize = 128 << 20

const (
	superblockAt   = 1024
	superblockSize = 1024
	magicAt        = 0x38
	magic          = 0xef53
	uuidAt         = 0x68
	checksumAt     = 0x3fc
)

// ErrNotBlank says that there is something on a device that is no ext4 file system.
var ErrNotBlank = errors.New("the device is not blank")

// blankSize is how much has to be zero for a device to count as blank.
const blankSize = 1 << 20

// Prepare makes sure that there is a file system on a device of so many bytes, and reports
// whether it made it. A device that holds anything else is left alone.
func Prepare(device *os.File, size int64) (made bool, err error) {
	head := make([]byte, min(blankSize, size))
	if _, err := device.ReadAt(head, 0); err != nil {
		return false, fmt.Errorf("read the beginning of %s: %w", device.Name(), err)
	}
	if len(head) > superblockAt+superblockSize && binary.LittleEndian.Uint16(head[superblockAt+magicAt:]) == magic {
		return false, nil
	}
	if len(bytes.Trim(head, "\x00")) > 0 {
		return false, fmt.Errorf("%s: %w, and holds no ext4 file system: overwrite its first MiB with zeros if nothing on it is needed any more", device.Name(), ErrNotBlank)
	}
	if size < TemplateSize {
		return false, fmt.Errorf("%s has %d bytes, a file system needs at least %d", device.Name(), size, TemplateSize)
	}
	return true, write(device)
}

// write puts the template on a device. The block with the superblock comes last, so that a
// file system is there whole or not at all.
func write(device *os.File) error {
	z, err := gzip.NewReader(bytes.NewReader(template))
	if err != nil {
		return err
	}
	// What was on the device before may show through where the template is zero: in the
	// journal and in tables that have not been initialised.
	if err := zero(device, TemplateSize); err != nil {
		return fmt.Errorf("clear %s: %w", device.Name(), err)
	}
	var first []byte
	for {
		var number uint32
		err := binary.Read(z, binary.LittleEndian, &number)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		block := make([]byte, BlockSize)
		if _, err := io.ReadFull(z, block); err != nil {
			return err
		}
		if number == 0 {
			first = block
			continue
		}
		if _, err := device.WriteAt(block, int64(number)*BlockSize); err != nil {
			return fmt.Errorf("write to %s: %w", device.Name(), err)
		}
	}
	if err := device.Sync(); err != nil {
		return err
	}
	individual(first[superblockAt:])
	if _, err := device.WriteAt(first, 0); err != nil {
		return fmt.Errorf("write to %s: %w", device.Name(), err)
	}
	return device.Sync()
}

// individual gives the file system an identity of its own. Checksums other than the
// superblock's do not depend on it (feature metadata_csum_seed).
func individual(superblock []byte) {
	uuid := superblock[uuidAt : uuidAt+16]
	_, _ = rand.Read(uuid) // never fails
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80
	// The kernel's crc32c begins with all ones and is not inverted at the end.
	sum := ^crc32.Checksum(superblock[:checksumAt], crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(superblock[checksumAt:], sum)
}

func zero(device *os.File, size int64) error {
	err := unix.Fallocate(int(device.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if err == nil {
		return nil
	}
	blank := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(blank)) {
		if _, err := device.WriteAt(blank, at); err != nil {
			return err
		}
	}
	return nil
}

// resizeFS is EXT4_IOC_RESIZE_FS of the kernel's fs/ext4/ext4.h.
const resizeFS = 0x40086610

// Grow has the kernel make a mounted file system as large as its device, of size bytes.
func Grow(dir string, size int64) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	blocks := uint64(size / BlockSize)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), resizeFS, uintptr(unsafe.Pointer(&blocks))); errno != 0 { //nolint:gosec // the kernel reads it
		return fmt.Errorf("grow the file system on %s to %d blocks: %w", dir, blocks, errno)
	}
	return nil
}
