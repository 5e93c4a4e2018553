package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bothy-os/bothy/os/verity"
)

// Flavours of the kernel.
const (
	// FlavourVM has the drivers of virtual machines.
	FlavourVM = "vm"
	// FlavourHardware has those of machines one can touch, too.
	FlavourHardware = "hardware"
)

// Options say what image to build.
type Options struct {
	// BinDir holds the binaries, as `make build` leaves them.
	BinDir string
	// ImagesDir is an OCI layout with the container images that no node can do without;
	// "" for none.
	ImagesDir string
	// Flavour of the kernel.
	Flavour string
	// Version of what is built, and Time when, to the second: part of the image.
	Version string
	Time    time.Time
	// OutDir gets the files, whose names begin with Name. Both are made if missing.
	OutDir, Name string
	// CacheDir keeps packages between builds.
	CacheDir string
	// CommandLine is added to the kernel's.
	CommandLine []string
	// SecureBoot signs the boot file on the disks; nil for not at all.
	SecureBoot *Keys
	// Compression of the root file system in the words of mkfs.erofs; "zstd,15" if empty.
	Compression string
	Log         *slog.Logger
}

func (o *Options) compression() string {
	if o.Compression != "" {
		return o.Compression
	}
	return "zstd,15"
}

// Artifact is a file, or a directory, of an image.
type Artifact struct {
	Name string `json:"name"`
	// Size in bytes. Most of a raw disk are holes, which take no space.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	// Digest of an OCI artifact.
	Digest string `json:"digest,omitempty"`
}

// Result describes an image; it is what NAME.json holds.
type Result struct {
	Version string    `json:"version"`
	Flavour string    `json:"flavour"`
	Kernel  string    `json:"kernel"`
	Time    time.Time `json:"time"`
	// RootHash vouches for the root file system, which has so many blocks.
	RootHash string `json:"rootHash"`
	Blocks   uint64 `json:"blocks"`
	// Modules of the kernel in the root file system.
	Modules   int        `json:"modules"`
	Signed    bool       `json:"signed"`
	Artifacts []Artifact `json:"artifacts"`
}

// Artifact returns the file whose name ends so.
func (r *Result) Artifact(ending string) *Artifact {
	i := slices.IndexFunc(r.Artifacts, func(a Artifact) bool { return strings.HasSuffix(a.Name, ending) })
	if i < 0 {
		return nil
	}
	return &r.Artifacts[i]
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

func (o *Options) check() error {
	switch {
	case o.Flavour != FlavourVM && o.Flavour != FlavourHardware:
		return fmt.Errorf("there is no flavour %q: use %s or %s", o.Flavour, FlavourVM, FlavourHardware)
	case !plainName.MatchString(o.Name):
		return fmt.Errorf("%q is no name for an image: use letters, digits, dots and dashes", o.Name)
	case !plainName.MatchString(o.Version):
		return fmt.Errorf("%q is no version", o.Version)
	case o.Time.Unix() <= 0:
		return errors.New("an image needs the time it was built at, which becomes the earliest time that the clock of a machine can show; say it with SOURCE_DATE_EPOCH")
	}
	return nil
}

// builder is one build.
type builder struct {
	opts           Options
	in             *inputs
	early, modules []string
	// count of modules in the root file system.
	count int
}

// Build builds an image. What an earlier build has left under the same name is replaced.
func Build(ctx context.Context, opts Options) (*Result, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	opts.Time = opts.Time.UTC().Truncate(time.Second)
	b := &builder{opts: opts}
	var err error
	if b.early, b.modules, err = selectModules(opts.Flavour); err != nil {
		return nil, err
	}
	opts.Log.Info("getting the packages that are not here yet", "cache", opts.CacheDir)
	if b.in, err = fetch(ctx, opts.CacheDir, opts.Flavour); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opts.OutDir, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(opts.OutDir, ".build-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }() // what stays is never used
	return b.build(ctx, work)
}

func (b *builder) build(ctx context.Context, work string) (*Result, error) {
	b.opts.Log.Info("making the root file system")
	r, err := b.makeRoot(ctx, work)
	if err != nil {
		return nil, err
	}
	b.opts.Log.Info("making the boot file")
	uki, err := b.makeBootFile(work, r)
	if err != nil {
		return nil, err
	}
	onDisk := uki
	if b.opts.SecureBoot != nil {
		if onDisk, err = b.opts.SecureBoot.Sign(uki, b.opts.Time); err != nil {
			return nil, fmt.Errorf("sign the boot file: %w", err)
		}
	}
	b.opts.Log.Info("writing the disks")
	result := &Result{
		Version: b.opts.Version, Flavour: b.opts.Flavour, Kernel: b.in.kernel.Release, Time: b.opts.Time,
		RootHash: r.hash.String(), Blocks: r.blocks, Modules: b.count, Signed: b.opts.SecureBoot != nil,
	}
	for _, a := range []struct {
		ending string
		write  func(file string) error
	}{
		{".efi", func(file string) error { return os.WriteFile(file, uki, 0o644) }},
		{".root", func(file string) error { return os.WriteFile(file, r.data, 0o644) }},
		{".spdx.json", b.writeSBOM},
		{".raw", func(file string) error { return writeDisk(file, onDisk, r, b.opts.Time) }},
		{".iso", func(file string) error { return writeISO(file, onDisk, r, b.opts.Time) }},
		{".qcow2", func(file string) error { return convertToQCOW2(b.path(".raw"), file) }},
	} {
		if err := replace(b.path(a.ending), a.write); err != nil {
			return nil, err
		}
		made, err := describe(b.path(a.ending))
		if err != nil {
			return nil, err
		}
		result.Artifacts = append(result.Artifacts, *made)
	}
	if err := b.checkSizes(result); err != nil {
		return nil, err
	}
	oci, err := b.writeArtifact(result, onDisk)
	if err != nil {
		return nil, fmt.Errorf("write the OCI artifact: %w", err)
	}
	result.Artifacts = append(result.Artifacts, *oci)
	manifest, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return nil, err
	}
	return result, replace(b.path(".json"), func(file string) error { return os.WriteFile(file, append(manifest, '\n'), 0o644) })
}

// How large files may become, in bytes: an update carries both through links that are slow, and
// the firmware reads the first into memory. A root file system that is compressed otherwise
// than as published is for trying things, and one for all hardware has many drivers.
const (
	maxBootFile = 20 * mib
	maxUpdate   = 90 * mib
)

// checkSizes refuses an image that has grown beyond what was promised.
func (b *builder) checkSizes(r *Result) error {
	boot, root := r.Artifact(".efi").Size, r.Artifact(".root").Size
	if boot > maxBootFile {
		return fmt.Errorf("the boot file has %d MiB, at most %d are allowed: leave out modules of the initramfs", boot/mib, maxBootFile/mib)
	}
	if b.opts.Compression == "" && b.opts.Flavour == FlavourVM && boot+root > maxUpdate {
		return fmt.Errorf("boot file and root file system have %d MiB, at most %d are allowed", (boot+root)/mib, maxUpdate/mib)
	}
	return nil
}

func (b *builder) path(ending string) string {
	return filepath.Join(b.opts.OutDir, b.opts.Name+ending)
}

// replace has a file written under another name first, so that there never is half of one.
func replace(file string, write func(file string) error) error {
	temp := file + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := write(temp); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, file)
}

func (b *builder) makeBootFile(work string, r *root) ([]byte, error) {
	initrd, err := b.makeInitramfs(work)
	if err != nil {
		return nil, err
	}
	stub, err := os.ReadFile(b.in.stub)
	if err != nil {
		return nil, err
	}
	kernel, err := os.ReadFile(b.in.kernel.Image)
	if err != nil {
		return nil, err
	}
	return makeUKI(stub, []section{
		{".osrel", []byte(b.osRelease())},
		{".cmdline", []byte(b.commandLine(r.hash, r.blocks))},
		{".uname", []byte(b.in.kernel.Release)},
		{".linux", kernel},
		{".initrd", initrd},
	})
}

// commandLine ends at once what cannot go on: a machine that nobody is near must start
// again, and only modules that Debian signed are loaded.
func (b *builder) commandLine(hash verity.Hash, blocks uint64) string {
	args := []string{
		"bothy.root=" + hash.String(), fmt.Sprintf("bothy.blocks=%d", blocks),
		"panic=5", "oops=panic", "module.sig_enforce=1", "loglevel=4", "console=ttyS0,115200", "console=tty0",
	}
	return strings.Join(append(args, b.opts.CommandLine...), " ")
}

func describe(file string) (*Artifact, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	return &Artifact{Name: filepath.Base(file), Size: size, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}
