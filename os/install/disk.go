package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/image/fat"
)

// Options say how to install.
type Options struct {
	// Overwrite writes to a disk that holds something. What it held is lost.
	Overwrite bool
	// Files go to the data partition, by their paths below the state directory, for the
	// owner's eyes only; FileTrees are directories that are copied there. With neither it
	// is left blank.
	Files     map[string][]byte
	FileTrees map[string]string
	// Progress is told how much is done, in percent; it may be nil.
	Progress func(percent int)
	// Time is when the boot file was made.
	Time time.Time

	// device is what is written to; nil is the disk itself. Tests cut its power.
	device Device
	// prepare makes the data partition; nil is prepareData.
	prepare func(device string, offset, size int64, opts *Options) error
}

// Device is what a system is written to. Sync returns once what was written survives a loss
// of power.
type Device interface {
	gpt.Disk
}

// Disk writes a system to a disk.
func Disk(ctx context.Context, target *disks.Disk, source *Source, opts Options) error {
	if target.InUse != "" {
		return fmt.Errorf("%s cannot be written to: %s", Describe(target), target.InUse)
	}
	if source.Device != "" && source.Device == target.Device {
		return fmt.Errorf("%s is what this system was started from", target.Device)
	}
	f, size, err := open(target.Device)
	if err != nil {
		return err
	}
	defer f.Close()
	if size < MinSize {
		return fmt.Errorf("%s has %d MiB, the system needs %d", target.Device, size/mib, MinSize/mib)
	}
	if !opts.Overwrite {
		if err := checkBlank(target, f, size); err != nil {
			return fmt.Errorf("%w; say overwrite to have it written over, which loses all that is on it", err)
		}
	}
	w := &writer{ctx: ctx, source: source, opts: opts, table: Table(size, fresh), size: size, file: f, device: opts.device}
	if w.device == nil {
		w.device = f
	}
	if err := w.write(target.Device); err != nil {
		return fmt.Errorf("install on %s: %w", target.Device, err)
	}
	if opts.device == nil {
		rereadPartitions(f)
	}
	return nil
}

// writer is one installation.
type writer struct {
	ctx    context.Context
	source *Source
	opts   Options
	table  *gpt.Table
	size   int64
	file   *os.File
	device Device
	// done of all bytes that are to be written and read again.
	done, all int64
	last      int
}

// write does everything in an order in which the disk starts nothing until all of it is
// there: what made it another one goes first, and the partition table comes last.
func (w *writer) write(device string) error {
	esp, root, data := w.table.Partitions[espPart], w.table.Partitions[rootPart], w.table.Partitions[dataPart]
	w.all = 2 * (w.source.RootSize + int64(len(w.source.BootFile)))
	if err := w.blank(data); err != nil {
		return fmt.Errorf("clear the disk: %w", err)
	}
	written, err := w.stream(io.NewSectionReader(w.source.Root, 0, w.source.RootSize), root.Offset())
	if err != nil {
		return fmt.Errorf("write the root file system: %w", err)
	}
	volume := &fat.Volume{Size: ESPSize, Label: ESPLabel, ID: ESPID, Time: w.opts.Time, Files: []fat.File{{Path: BootFile, Data: w.source.BootFile}}}
	if err := volume.Write(io.NewOffsetWriter(w.device, esp.Offset())); err != nil {
		return fmt.Errorf("write the boot file: %w", err)
	}
	w.advance(int64(len(w.source.BootFile)))
	if err := w.device.Sync(); err != nil {
		return err
	}
	if len(w.opts.Files)+len(w.opts.FileTrees) > 0 {
		prepare := w.opts.prepare
		if prepare == nil {
			prepare = prepareData
		}
		if err := prepare(device, data.Offset(), data.Size(), &w.opts); err != nil {
			return fmt.Errorf("make the data partition: %w", err)
		}
		if err := w.device.Sync(); err != nil {
			return err
		}
	}
	if err := w.verify(written); err != nil {
		return fmt.Errorf("read what was written: %w", err)
	}
	return w.table.Write(w.device, w.size)
}

// blank takes away what there was: partition tables, and whatever could be taken for the
// beginning of a file system. The first sectors go first: without them there is no system.
func (w *writer) blank(data gpt.Partition) error {
	zeros := make([]byte, mib)
	for _, part := range []struct{ at, size int64 }{{0, mib}, {w.size - mib, mib}} {
		if _, err := w.device.WriteAt(zeros[:part.size], part.at); err != nil {
			return err
		}
	}
	if err := w.device.Sync(); err != nil {
		return err
	}
	discard(w.file, w.size)
	if _, err := w.device.WriteAt(unfinished, 0); err != nil {
		return err
	}
	if err := w.device.Sync(); err != nil {
		return err
	}
	esp := w.table.Partitions[espPart]
	// Of the ESP everything that its file system may not write: zeros are left out there.
	for _, part := range []struct{ at, size int64 }{{esp.Offset(), espHead}, {data.Offset(), headSize}} {
		for at := int64(0); at < part.size; at += mib {
			if err := w.ctx.Err(); err != nil {
				return err
			}
			if _, err := w.device.WriteAt(zeros, part.at+at); err != nil {
				return err
			}
		}
	}
	return w.device.Sync()
}

// espHead is as much of the ESP as a boot file and the tables can take.
const espHead = 64 * mib

// pieceSize is how much is written at once.
const pieceSize = 1 * mib

// stream writes all of r and returns the hash of it.
func (w *writer) stream(r io.Reader, to int64) (hash.Hash, error) {
	sum, piece := sha256.New(), make([]byte, pieceSize)
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		n, err := io.ReadFull(r, piece)
		if n > 0 {
			_, _ = sum.Write(piece[:n]) // never fails
			if _, err := w.device.WriteAt(piece[:n], to); err != nil {
				return nil, err
			}
			to += int64(n)
			w.advance(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return sum, nil
		case err != nil:
			return nil, err
		}
	}
}

// verify reads from the disk what was written to it.
func (w *writer) verify(written hash.Hash) error {
	esp, root := w.table.Partitions[espPart], w.table.Partitions[rootPart]
	// From the disk, and not from memory.
	_ = unix.Fadvise(int(w.file.Fd()), 0, 0, unix.FADV_DONTNEED) // then from memory
	sum, piece := sha256.New(), make([]byte, pieceSize)
	for at := int64(0); at < w.source.RootSize; at += pieceSize {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		part := piece[:min(pieceSize, w.source.RootSize-at)]
		if _, err := w.device.ReadAt(part, root.Offset()+at); err != nil {
			return err
		}
		_, _ = sum.Write(part) // never fails
		w.advance(int64(len(part)))
	}
	if !bytes.Equal(sum.Sum(nil), written.Sum(nil)) {
		return errors.New("the root file system is not what was written: the disk is faulty")
	}
	boot, err := fat.ReadFile(io.NewSectionReader(w.device, esp.Offset(), esp.Size()), BootFile)
	if err != nil {
		return err
	}
	if !bytes.Equal(boot, w.source.BootFile) {
		return errors.New("the boot file is not what was written: the disk is faulty")
	}
	w.advance(int64(len(boot)))
	return nil
}

func (w *writer) advance(n int64) {
	w.done += n
	percent := int(w.done * 100 / max(w.all, 1))
	if w.opts.Progress != nil && percent != w.last {
		w.last = percent
		w.opts.Progress(percent)
	}
}

// discard tells a disk that nothing on it is needed any more. Those that cannot forget keep
// what they have, which is written over as far as it matters.
func discard(f *os.File, size int64) {
	const blkDiscard = 0x1277
	area := [2]uint64{0, uint64(size)}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), blkDiscard, uintptr(unsafe.Pointer(&area))) //nolint:gosec // the kernel reads it
}

// rereadPartitions has the kernel look at a new partition table. When it does not the next
// start does.
func rereadPartitions(f *os.File) {
	const blkRRPart = 0x125f
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), blkRRPart, 0)
}
