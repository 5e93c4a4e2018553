package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/os/verity"
)

const (
	binDir = "usr/bin"
	// ImagesDir holds the container images that no node can do without, as an OCI layout.
	ImagesDir = "/usr/share/bothy/images"
)

// root is a root file system with its hash tree, ready to be written to a slot.
type root struct {
	data []byte
	hash verity.Hash
	// blocks of data before the tree.
	blocks uint64
}

// makeRoot builds the root file system. Work is a directory for what is needed on the way.
func (b *builder) makeRoot(ctx context.Context, work string) (*root, error) {
	tree, file := filepath.Join(work, "root"), filepath.Join(work, "root.erofs")
	if err := b.stage(tree); err != nil {
		return nil, err
	}
	// Attributes of the host's files, such as labels of its security modules, stay behind.
	// zstd at 64 KiB halves the binaries; deduplication and packed tails would make the
	// tool give up its threads for a percent.
	err := b.in.mkfs.run(ctx, "--quiet", "-T", fmt.Sprint(b.opts.Time.Unix()), "--all-root", "-x-1", "-U", "c3b6ecbf-6bd5-4b8a-8ad5-7e3bcd2bb1a9",
		"-L", "bothy", "-z", b.opts.compression(), "-C", "65536", file, tree)
	if err != nil {
		return nil, fmt.Errorf("make the root file system: %w", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if over := len(data) % verity.BlockSize; over != 0 {
		data = append(data, make([]byte, verity.BlockSize-over)...)
	}
	// Salt and name follow from the content: chance would make every build another.
	sum := sha256.Sum256(data)
	r := &root{blocks: uint64(len(data) / verity.BlockSize)}
	var hashes bytes.Buffer
	r.hash, err = verity.Append(&hashes, data, sum[:], [16]byte(sum[:16]))
	r.data = append(data, hashes.Bytes()...)
	return r, err
}

// stage lays out what becomes the root file system.
func (b *builder) stage(tree string) error {
	for _, name := range binaries() {
		if err := copyFile(filepath.Join(b.opts.BinDir, name), filepath.Join(tree, binDir, name), 0o755); err != nil {
			return fmt.Errorf("%w: build it with `make build`", err)
		}
	}
	certificates, err := b.certificates()
	if err != nil {
		return err
	}
	for path, content := range map[string]string{ //nolint:gosec // nobody can log in with these
		"etc/ssl/certs/ca-certificates.crt": certificates,
		"etc/os-release":                    b.osRelease(),
		"etc/passwd":                        "root:x:0:0:root:/root:/usr/bin/false\nnobody:x:65534:65534:nobody:/nonexistent:/usr/bin/false\n",
		"etc/group":                         "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts":                         "127.0.0.1 localhost\n::1 localhost\n",
	} {
		if err := writeFile(filepath.Join(tree, path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "var", "root", "mnt"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{
		"bin": binDir, "sbin": binDir, "lib": "usr/lib", "usr/sbin": "bin",
		binDir + "/init": "bothy-init", binDir + "/modprobe": "bothy-init", binDir + "/mount": "bothy-init", binDir + "/umount": "bothy-init",
		"etc/resolv.conf": "../run/bothy/resolv.conf", "etc/machine-id": "../run/bothy/machine-id", "etc/mtab": "../proc/self/mounts",
	} {
		if err := os.Symlink(target, filepath.Join(tree, link)); err != nil {
			return err
		}
	}
	modules := filepath.Join(tree, "usr/lib/modules", b.in.kernel.Release)
	if b.count, err = copyModules(b.in.kernel, b.modules, modules); err != nil {
		return fmt.Errorf("modules of the root file system: %w", err)
	}
	if err := b.stageImages(filepath.Join(tree, ImagesDir)); err != nil {
		return err
	}
	return setModes(tree)
}

// setModes gives everything the permissions that it has in the image, whatever the mask of
// whoever builds it.
func setModes(tree string) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		if d.IsDir() || filepath.Dir(path) == filepath.Join(tree, binDir) {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
}

// binaries are all programs of the image; the rest are names for them.
func binaries() []string {
	return []string{"bothy", "bothy-cni", "bothy-init", "containerd-shim-runc-v2", "runc"}
}

// certificates is all of Debian's roots in one file.
func (b *builder) certificates() (string, error) {
	var files []string
	err := filepath.WalkDir(b.in.certificates, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".crt") {
			files = append(files, path)
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return "", fmt.Errorf("read the CA certificates in %s: %w", b.in.certificates, err)
	}
	slices.Sort(files)
	var all strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		all.Write(bytes.TrimSpace(data))
		all.WriteByte('\n')
	}
	return all.String(), nil
}

func (b *builder) osRelease() string {
	return fmt.Sprintf("ID=bothy\nNAME=bothy\nPRETTY_NAME=\"bothy %[1]s\"\nVERSION_ID=\"%[1]s\"\nVARIANT_ID=%[2]s\nBUILD_ID=%[3]d\n",
		b.opts.Version, b.opts.Flavour, b.opts.Time.Unix())
}

// stageImages copies an OCI layout; there need not be one.
func (b *builder) stageImages(to string) error {
	if b.opts.ImagesDir == "" {
		return nil
	}
	return copyTree(b.opts.ImagesDir, to)
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return copyFile(path, filepath.Join(to, rel), 0o644)
	})
}
