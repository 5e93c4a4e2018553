package machine

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	// fwCfgFile is where a hypervisor puts the boot configuration with
	// -fw_cfg name=opt/bothy/boot.yaml,file=...
	fwCfgFile = "/sys/firmware/qemu_fw_cfg/by_name/opt/bothy/boot.yaml/raw"
	// smbiosPrefix begins the string of SMBIOS type 11 that has it, in base64.
	smbiosPrefix = "bothy.boot.b64="
)

func searchFirmwareConfig() (*found, error) {
	data, err := os.ReadFile(fwCfgFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNone
	}
	if err != nil {
		return nil, fmt.Errorf("read the firmware's configuration: %w", err)
	}
	return decode("fw_cfg opt/bothy/boot.yaml", data)
}

func searchSMBIOS() (*found, error) {
	files, err := filepath.Glob("/sys/firmware/dmi/entries/11-*/raw")
	if err != nil || len(files) == 0 {
		return nil, errNone
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the strings of the SMBIOS: %w", err)
		}
		for _, s := range smbiosStrings(data) {
			encoded, ok := strings.CutPrefix(s, smbiosPrefix)
			if !ok {
				continue
			}
			text, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				return nil, fmt.Errorf("SMBIOS type 11: what follows %s is no base64: %w", smbiosPrefix, err)
			}
			return decode("SMBIOS type 11", text)
		}
	}
	return nil, errNone
}

// smbiosStrings are those of a structure: they follow its formatted part, whose length is
// in its second byte, each ended by a zero, and all by another (DSP0134, 6.1.3).
func smbiosStrings(structure []byte) []string {
	if len(structure) < 2 || int(structure[1]) > len(structure) {
		return nil
	}
	var out []string
	for rest := structure[structure[1]:]; len(rest) > 0 && rest[0] != 0; {
		s, after, _ := bytes.Cut(rest, []byte{0})
		out = append(out, string(s))
		rest = after
	}
	return out
}
