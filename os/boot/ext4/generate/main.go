// Command generate makes the template of an empty ext4 file system:
//
//	generate FILE
//
// It needs mke2fs. The same version of it gives the same bytes.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	blockSize = 4096
	sizeMiB   = 128
	// features are written out, so that the machine's mke2fs.conf has no say.
	features = "has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize," +
		"metadata_csum,metadata_csum_seed,quota,project"
	identity = "2f0e2f39-5d0c-4d0f-9d0a-6f3c1f1c4b11"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(to string) error {
	dir, err := os.MkdirTemp("", "bothy-ext4-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the temporary directory
	image := filepath.Join(dir, "image")
	// The journal is that of a disk of some gigabytes: it does not grow. Project quotas
	// limit volumes; the checksums' seed lets the identity change. Of the blocks that are kept for whoever may use
	// resources without limit, the kernel takes the share in whole percent when the file system grows: a little more
	// than three.
	cmd := exec.Command("mke2fs", "-q", "-F", "-L", "bothy-data", "-U", identity, "-b", fmt.Sprint(blockSize),
		"-i", "16384", "-I", "256", "-m", "3.2", "-J", "size=32", "-e", "remount-ro",
		"-O", "none,"+features,
		"-E", "quotatype=prjquota,lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0,hash_seed="+identity, image, fmt.Sprintf("%dM", sizeMiB))
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000", "MKE2FS_CONFIG=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, out)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	blank := make([]byte, blockSize)
	for number := 0; number < len(data)/blockSize; number++ {
		block := data[number*blockSize:][:blockSize]
		if bytes.Equal(block, blank) {
			continue
		}
		if err := binary.Write(z, binary.LittleEndian, uint32(number)); err != nil {
			return err
		}
		if _, err := z.Write(block); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, packed.Bytes(), 0o644)
}
