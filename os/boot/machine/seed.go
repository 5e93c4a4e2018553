package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/disks"
)

// isSeed knows what a seed volume may be called: by its own name, or by the one that
// other systems' tools give theirs.
func isSeed(label string) bool { return label == "BOTHY-SEED" || label == "CIDATA" }

const seedMount = "/mnt/seed"

// searchSeed looks at every volume there is.
func searchSeed() (*found, error) {
	for _, device := range disks.All() {
		fstype, label, err := identify(device)
		if err != nil || !isSeed(label) {
			continue // unreadable, empty, or somebody else's
		}
		f, err := readSeed(device, fstype)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it brings something else, see bundles.go
		}
		if err != nil {
			return nil, fmt.Errorf("seed volume %s on %s: %w", label, device, err)
		}
		return f, nil
	}
	return nil, errNone
}

// identify reads the kind and the label of a file system that seeds may have.
func identify(device string) (fstype, label string, err error) {
	f, err := os.Open(device)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	return identifyFS(f)
}

func identifyFS(f io.ReaderAt) (fstype, label string, err error) {
	sector := make([]byte, 512)
	if _, err := f.ReadAt(sector, 0); err != nil {
		return "", "", err
	}
	for _, fat := range []struct {
		kindAt  int
		kind    string
		labelAt int
	}{{82, "FAT32", 71}, {54, "FAT", 43}} {
		if bytes.HasPrefix(sector[fat.kindAt:], []byte(fat.kind)) {
			return "vfat", strings.TrimRight(string(sector[fat.labelAt:fat.labelAt+11]), " \x00"), nil
		}
	}
	const isoDescriptor = 16 * 2048
	descriptor := make([]byte, 2048)
	if _, err := f.ReadAt(descriptor, isoDescriptor); err != nil {
		return "", "", err
	}
	if string(descriptor[1:6]) == "CD001" {
		return "iso9660", strings.ToUpper(strings.TrimRight(string(descriptor[40:72]), " \x00")), nil
	}
	return "", "", errors.New("no file system that a seed could have")
}

// readSeed takes the configuration from a volume, and everything else along with it: keys,
// container images, a bundle of the repository.
func readSeed(device, fstype string) (f *found, err error) {
	err = withSeed(device, fstype, func() error {
		if f, err = decodeSeed(device); err != nil {
			return err
		}
		return copySeed(seedMount, seedDir)
	})
	return f, err
}

// readConfig takes nothing but the configuration from a volume.
func readConfig(device, fstype string) (f *found, err error) {
	err = withSeed(device, fstype, func() error {
		f, err = decodeSeed(device)
		return err
	})
	return f, err
}

// withSeed has a volume mounted for as long as do runs.
func withSeed(device, fstype string, do func() error) (err error) {
	if err := os.MkdirAll(seedMount, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(device, seedMount, fstype, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(seedMount, 0)) }()
	return do()
}

func decodeSeed(device string) (*found, error) {
	data, err := os.ReadFile(filepath.Join(seedMount, boot.SeedConfig))
	if err != nil {
		return nil, fmt.Errorf("read the boot configuration: %w", err)
	}
	return decode(boot.SeedConfig+" on "+device, data)
}

// copySeed copies what is beside the configuration, for the owner's eyes only.
func copySeed(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return durable.MkdirAll(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular() || rel == boot.SeedConfig:
			return nil
		}
		return durable.CopyFile(path, filepath.Join(to, rel), 0o600)
	})
}
