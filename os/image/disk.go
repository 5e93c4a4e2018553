package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/image/fat"
	"github.com/bothy-os/bothy/os/install"
)

// BootFile is what the firmware starts without being told.
const BootFile = install.BootFile

const (
	mib = 1 << 20
	// diskSize is that of the smallest disk. The data partition grows when the machine starts.
	diskSize = install.MinSize
)

// writeDisk makes file a disk that starts the boot file on the root file system in its
// first slot. What is empty takes no space.
func writeDisk(file string, uki []byte, r *root, made time.Time) (err error) {
	if len(r.data) > install.SlotSize {
		return fmt.Errorf("a root file system of %d MiB does not fit into a slot of %d MiB", len(r.data)/mib, install.SlotSize/mib)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(diskSize); err != nil {
		return err
	}
	table := install.Table(diskSize, r.guid)
	if err := table.Write(f, diskSize); err != nil {
		return err
	}
	if err := espOf(uki, install.ESPSize, made).Write(io.NewOffsetWriter(f, table.Partitions[0].Offset())); err != nil {
		return fmt.Errorf("make the EFI system partition: %w", err)
	}
	_, err = f.WriteAt(r.data, table.Partitions[1].Offset())
	return err
}

func espOf(uki []byte, size int64, made time.Time) *fat.Volume {
	return &fat.Volume{Size: size, Label: install.ESPLabel, ID: install.ESPID, Time: made, Files: []fat.File{{Path: BootFile, Data: uki}}}
}

// guid makes an identifier that is always the same for the same root file system.
func (r *root) guid(name string) gpt.GUID { return gpt.DeriveGUID(name + " " + r.hash.String()) }
