package image

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bothy-os/bothy/internal/debian"
)

//go:embed lock.yaml
var lockYAML []byte

const (
	stubPackage         = "systemd-boot-efi"
	certificatesPackage = "ca-certificates"
	erofsPackage        = "erofs-utils"
)

// toolLibraries are what mkfs.erofs is linked with, and the loader.
func toolLibraries() []string {
	return []string{"libc6", "libdeflate0", "liblz4-1", "liblzma5", "libpcre2-8-0", "libselinux1", "libuuid1", "libxxhash0", "libzstd1", "zlib1g"}
}

// inputs are the unpacked packages.
type inputs struct {
	lock         *debian.Lock
	kernel       *debian.Kernel
	stub         string
	certificates string
	mkfs         tool
}

// tool is a program that runs with libraries of its own.
type tool struct {
	loader, program string
	libraries       []string
}

func fetch(ctx context.Context, cache, flavour string) (*inputs, error) {
	if err := require("apt-get", "dpkg-deb", "xz"); err != nil {
		return nil, err
	}
	lock, err := debian.ParseLock("os/image/lock.yaml", lockYAML)
	if err != nil {
		return nil, err
	}
	store, err := debian.Open(cache, lock)
	if err != nil {
		return nil, err
	}
	names := append([]string{stubPackage, certificatesPackage, erofsPackage}, toolLibraries()...)
	dirs, err := store.Unpacked(ctx, names...)
	if err != nil {
		return nil, err
	}
	kernel, err := store.Kernel(ctx, flavour)
	if err != nil {
		return nil, err
	}
	in := &inputs{
		lock: lock, kernel: kernel,
		stub:         filepath.Join(dirs[0], "usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
		certificates: filepath.Join(dirs[1], "usr/share/ca-certificates"),
		mkfs:         tool{program: filepath.Join(dirs[2], "usr/bin/mkfs.erofs"), loader: filepath.Join(dirs[3], "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")},
	}
	for _, dir := range dirs[3:] {
		in.mkfs.libraries = append(in.mkfs.libraries, filepath.Join(dir, "usr/lib/x86_64-linux-gnu"))
	}
	return in, nil
}

// require says which programs of the host are missing.
func require(names ...string) error {
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("building an image needs %s: install what is missing with `hack/deps.sh image`", strings.Join(missing, ", "))
	}
	return nil
}

func (t tool) run(ctx context.Context, args ...string) error {
	args = append([]string{"--library-path", strings.Join(t.libraries, ":"), t.program}, args...)
	cmd := exec.CommandContext(ctx, t.loader, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(t.program), err, strings.TrimSpace(string(out)))
	}
	return nil
}
