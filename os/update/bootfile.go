package update

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
)

// bootFile is what can be known of a boot file, a unified kernel image, without starting it.
type bootFile struct {
	commandLine []string
	release     map[string]string
	signed      bool
	sum         string
}

// machines are the processors of boot files by Go's names.
var machines = map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}

func parseBootFile(data []byte) (*bootFile, error) {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("it is no program for UEFI firmware: %w", err)
	}
	defer func() { _ = f.Close() }() // in memory
	head, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("it is no program for 64-bit firmware")
	}
	if is := machines[f.Machine]; is != runtime.GOARCH {
		if is == "" {
			is = fmt.Sprintf("machine type %#x", f.Machine)
		}
		return nil, fmt.Errorf("it is for %s, this machine is %s", is, runtime.GOARCH)
	}
	for _, name := range []string{".linux", ".initrd", ".cmdline", ".osrel"} {
		s := f.Section(name)
		if s == nil {
			return nil, fmt.Errorf("it has no section %s: it is no unified kernel image", name)
		}
		if uint64(s.Offset)+uint64(s.Size) > uint64(len(data)) || s.VirtualSize > s.Size {
			return nil, fmt.Errorf("its section %s is cut off", name)
		}
	}
	text := func(name string) string {
		s := f.Section(name)
		return strings.TrimRight(string(data[s.Offset:][:s.VirtualSize]), "\x00\n ")
	}
	sum := sha256.Sum256(data)
	b := &bootFile{commandLine: strings.Fields(text(".cmdline")), release: map[string]string{}, sum: hex.EncodeToString(sum[:])}
	for line := range strings.Lines(text(".osrel")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			b.release[key] = strings.Trim(value, `"`)
		}
	}
	const certificates = 4 // IMAGE_DIRECTORY_ENTRY_SECURITY
	b.signed = head.NumberOfRvaAndSizes > certificates && head.DataDirectory[certificates].Size > 0
	if b.release["ID"] != "bothy" {
		return nil, fmt.Errorf("it is of the system %q, not of bothy", b.release["ID"])
	}
	return b, nil
}
