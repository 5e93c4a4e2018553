package image

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/image/fat"
)

// SeedLabel is how a machine knows a seed volume.
const SeedLabel = "BOTHY-SEED"

// seedTime is when every file of a seed was made: the same files give the same volume.
const seedTime = 1 << 30

// Seed is a volume with boot configuration.
type Seed struct {
	// Config is the boot configuration, checked by whoever makes the seed; nil for a volume that
	// only brings something to a machine that has one.
	Config []byte
	// Include are files and directories that go along, by the name under which the
	// machine finds them in /var/lib/bothy/seed. An OCI layout named images is imported.
	Include map[string]string
}

// Write makes file a seed volume, which can be written to a stick or given to a virtual
// machine as a disk.
func (s *Seed) Write(file string) error {
	var files []fat.File
	if s.Config != nil {
		files = append(files, fat.File{Path: boot.SeedConfig, Data: s.Config})
	}
	size := int64(fat.MinSize)
	for _, name := range slices.Sorted(maps.Keys(s.Include)) {
		if name == boot.SeedConfig {
			return fmt.Errorf("%s is the boot configuration, and cannot be anything else", name)
		}
		more, err := readTree(name, s.Include[name])
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	id := fnv.New32a()
	for _, f := range files {
		const cluster = 4096
		size += int64(len(f.Data)) + 2*cluster
		_, _ = id.Write([]byte(f.Path)) // never fails
	}
	volume := &fat.Volume{Size: (size + mib) / mib * mib, Label: SeedLabel, ID: id.Sum32(), Time: time.Unix(seedTime, 0), Files: files}
	return replace(file, func(temp string) (err error) {
		f, err := os.Create(temp)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := f.Truncate(volume.Size); err != nil {
			return err
		}
		return volume.Write(f)
	})
}

func readTree(name, dir string) ([]fat.File, error) {
	var out []fat.File
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		out = append(out, fat.File{Path: path.Join(name, filepath.ToSlash(rel)), Data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s for the seed: %w", dir, err)
	}
	return out, nil
}
