package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/image/fat"
	"github.com/bothy-os/bothy/os/verity"
)

// Source is a system that can be written to a disk.
type Source struct {
	// BootFile is started by the firmware.
	BootFile []byte
	// Root is the root file system with its hash tree, of RootSize bytes.
	Root     io.ReaderAt
	RootSize int64
	// Hash is what vouches for it, which has so many blocks of data.
	Hash   verity.Hash
	Blocks uint64
	// Device is what it is read from, "" for files.
	Device string

	file *os.File
}

// Close lets go of the device or the file.
func (s *Source) Close() error { return s.file.Close() }

// Running is the system that runs, by its command line, as it is on the medium or the disk
// that it was started from.
func Running(commandLine string) (*Source, error) {
	s := &Source{}
	for field := range strings.FieldsSeq(commandLine) {
		key, value, _ := strings.Cut(field, "=")
		var err error
		switch key {
		case "bothy.root":
			s.Hash, err = verity.ParseHash(value)
		case "bothy.blocks":
			s.Blocks, err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("the kernel's command line: %s: %w", key, err)
		}
	}
	if s.Blocks == 0 {
		return nil, errors.New("the running system was not started from a boot file of bothy")
	}
	var errs []error
	for _, device := range disks.All() {
		found, err := s.open(device)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", device, err))
		}
		if found {
			return s, nil
		}
	}
	return nil, errors.Join(append([]error{errors.New("the medium that the system was started from is not there any more")}, errs...)...)
}

// open looks at a device. One without the system is no error.
func (s *Source) open(device string) (found bool, err error) {
	f, err := os.Open(device)
	if err != nil {
		return false, nil // a reader without a medium
	}
	defer func() {
		if !found {
			f.Close()
		}
	}()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size < 2*mib {
		return false, nil // too small for anything
	}
	table, err := gpt.Read(f, size)
	if err != nil {
		return false, nil // it holds something else
	}
	for _, p := range table.Partitions {
		part := io.NewSectionReader(f, p.Offset(), p.Size())
		switch p.Name {
		case disks.RootA, disks.RootB:
			sb, err := verity.Find(part, s.Blocks, s.Hash)
			if err != nil {
				continue
			}
			s.Root, s.RootSize, found = part, sb.Size(), true
		}
	}
	if !found {
		return false, nil
	}
	for _, p := range table.Partitions {
		if p.Name == disks.ESP {
			s.BootFile, err = fat.ReadFile(io.NewSectionReader(f, p.Offset(), p.Size()), BootFile)
		}
	}
	if err == nil && len(s.BootFile) == 0 {
		err = errors.New("there is no boot file on it")
	}
	if err == nil {
		err = s.fits()
	}
	s.Device, s.file = device, f
	return err == nil, err
}

// fits makes sure that boot file and root file system belong together.
func (s *Source) fits() error {
	if !bytes.Contains(s.BootFile, []byte("bothy.root="+s.Hash.String())) {
		return errors.New("the boot file is for another root file system")
	}
	if s.RootSize > SlotSize {
		return fmt.Errorf("a root file system of %d MiB does not fit into a slot of %d MiB", s.RootSize/mib, SlotSize/mib)
	}
	return nil
}

// Image is what the image builder has left, by the beginning of its names: NAME.efi,
// NAME.root and NAME.json.
func Image(name string) (*Source, error) {
	var described struct {
		RootHash string `json:"rootHash"`
		Blocks   uint64 `json:"blocks"`
	}
	data, err := os.ReadFile(name + ".json")
	if err == nil {
		err = json.Unmarshal(data, &described)
	}
	if err != nil {
		return nil, fmt.Errorf("read the description of the image: %w; `bothy os build` makes it", err)
	}
	s := &Source{Blocks: described.Blocks}
	if s.Hash, err = verity.ParseHash(described.RootHash); err != nil {
		return nil, fmt.Errorf("%s.json: rootHash: %w", filepath.Base(name), err)
	}
	if s.BootFile, err = os.ReadFile(name + ".efi"); err != nil {
		return nil, err
	}
	if s.file, err = os.Open(name + ".root"); err != nil {
		return nil, err
	}
	sb, err := verity.Find(s.file, s.Blocks, s.Hash)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s.root: %w", filepath.Base(name), err), s.file.Close())
	}
	s.Root, s.RootSize = s.file, sb.Size()
	if err := s.fits(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}
