package image

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/bothy-os/bothy/internal/initramfs"
)

// makeInitramfs builds the first stage: bothy-init, and the modules without which the
// root file system cannot be found.
func (b *builder) makeInitramfs(work string) ([]byte, error) {
	dir := filepath.Join(work, "early")
	if _, err := copyModules(b.in.kernel, b.early, dir); err != nil {
		return nil, fmt.Errorf("modules of the initramfs: %w", err)
	}
	if err := setModes(dir); err != nil {
		return nil, err
	}
	var plain bytes.Buffer
	a := initramfs.NewArchive(&plain)
	modules := "/lib/modules/" + b.in.kernel.Release
	for _, d := range []string{"/dev", "/proc", "/sys", "/root", "/sbin", "/lib", "/lib/modules", modules} {
		a.Mkdir(d, 0o755)
	}
	first, err := os.ReadFile(filepath.Join(b.opts.BinDir, "bothy-init"))
	if err != nil {
		return nil, err
	}
	a.Write("/init", first, 0o755)
	a.Symlink("/sbin/modprobe", "../init")
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := modules + strings.TrimPrefix(path, dir)
		switch {
		case err != nil || path == dir || strings.HasSuffix(path, "modules.builtin.modinfo"):
		case d.IsDir():
			a.Mkdir(name, 0o755)
		default:
			a.Add(name, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	// One thread, so that the result does not depend on how many there are.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer func() { _ = z.Close() }() // nothing is buffered
	return z.EncodeAll(plain.Bytes(), nil), nil
}
