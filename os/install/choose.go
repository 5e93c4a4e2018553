package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
)

// Choose returns the disk that a selector means among all. It has to be the only one that
// can be written to and is not in use, unless the selector says which of several to take.
func Choose(all []disks.Disk, s *v1alpha1.DiskSelector) (*disks.Disk, error) {
	var fit []disks.Disk
	var listed []string
	for _, d := range all {
		why := unfit(&d, s)
		if why == "" {
			fit = append(fit, d)
		} else {
			why = ", " + why
		}
		listed = append(listed, Describe(&d)+why)
	}
	if len(listed) == 0 {
		return nil, errors.New("this machine has no disk")
	}
	switch {
	case len(fit) == 0:
		return nil, fmt.Errorf("no disk fits; there is %s", strings.Join(listed, "; "))
	case len(fit) == 1:
		return &fit[0], nil
	case s.Pick == "":
		return nil, fmt.Errorf("%d disks fit, say which one (serial, model, minGiB, maxGiB, or pick: smallest or largest); there is %s", len(fit), strings.Join(listed, "; "))
	}
	best := &fit[0]
	for i := range fit {
		if s.Pick == v1alpha1.PickSmallest && fit[i].Size < best.Size || s.Pick == v1alpha1.PickLargest && fit[i].Size > best.Size {
			best = &fit[i]
		}
	}
	for i := range fit {
		if &fit[i] != best && fit[i].Size == best.Size {
			return nil, fmt.Errorf("several disks are the %s; say which one by its serial number; there is %s", s.Pick, strings.Join(listed, "; "))
		}
	}
	return best, nil
}

// unfit says why a disk is not the one that is meant, "" if it is.
func unfit(d *disks.Disk, s *v1alpha1.DiskSelector) string {
	gib := func(n int) int64 { return int64(n) << 30 }
	switch {
	case s.Serial != "" && d.Serial != s.Serial, s.Path != "" && d.Device != s.Path, s.Model != "" && d.Model != s.Model:
		return "another one"
	case s.MinGiB > 0 && d.Size < gib(s.MinGiB), s.MaxGiB > 0 && d.Size > gib(s.MaxGiB):
		return "of another size"
	case d.InUse != "":
		return d.InUse
	case d.ReadOnly:
		return "read-only"
	case d.Removable && s.Serial == "" && s.Path == "":
		return "removable"
	case d.SectorSize != 0 && d.SectorSize != gpt.SectorSize:
		return fmt.Sprintf("with sectors of %d bytes, not %d", d.SectorSize, gpt.SectorSize)
	case d.Size < MinSize:
		return fmt.Sprintf("smaller than %d MiB", MinSize/mib)
	}
	return ""
}

// Describe names a disk for people.
func Describe(d *disks.Disk) string {
	text := fmt.Sprintf("%s (%.1f GiB", d.Device, float64(d.Size)/(1<<30))
	if d.Model != "" {
		text += ", " + d.Model
	}
	if d.Serial != "" {
		text += ", serial " + d.Serial
	}
	return text + ")"
}

// ErrNotBlank says that there is something on a disk.
var ErrNotBlank = errors.New("the disk is not blank")

// headSize and tailSize are how much of the ends of a disk has to be zero for it to count as blank:
// partition tables, file systems and the records of software RAID are there.
const headSize, tailSize = 4 * mib, 1 * mib

// unfinished is the first sector of a disk while a system is being installed on it: nobody
// takes it for the beginning of anything, and when the power goes the disk still is one that
// may be written to.
var unfinished = func() []byte {
	sector := make([]byte, gpt.SectorSize)
	copy(sector, "bothy is being installed here, and was interrupted\n")
	return sector
}()

// checkBlank is an error for a disk with anything on it but what an interrupted installation
// has left.
func checkBlank(d *disks.Disk, f io.ReaderAt, size int64) error {
	first := make([]byte, gpt.SectorSize)
	if _, err := f.ReadAt(first, 0); err != nil {
		return fmt.Errorf("read %s: %w", d.Device, err)
	}
	if bytes.Equal(first, unfinished) {
		return nil
	}
	if len(d.Partitions) > 0 {
		return fmt.Errorf("%w: %s has partitions %s", ErrNotBlank, d.Device, strings.Join(d.Partitions, ", "))
	}
	for _, part := range []struct{ at, size int64 }{{0, headSize}, {size - tailSize, tailSize}} {
		data := make([]byte, part.size)
		if _, err := f.ReadAt(data, part.at); err != nil {
			return fmt.Errorf("read %s: %w", d.Device, err)
		}
		for i, b := range data {
			if b != 0 {
				return fmt.Errorf("%w: there is something on %s at byte %d", ErrNotBlank, d.Device, part.at+int64(i))
			}
		}
	}
	return nil
}

// open opens a disk for nobody else.
func open(device string) (*os.File, int64, error) {
	f, err := os.OpenFile(device, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open %s, which nothing else may use: %w", device, err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("measure %s: %w", device, err)
	}
	return f, size, nil
}
