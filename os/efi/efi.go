// Package efi reads and writes the variables by which the firmware is told what to start, as
// chapter 3 of the UEFI specification describes them, through the kernel's efivarfs.
//
// All that is ever set is a boot option that no order names, and that it is to be started
// once, at the next start: what the firmware starts by itself is never changed, so that a
// machine whose firmware forgets its variables starts as always.
//
// It must not know what is started.
package efi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/gpt"
)

// Dir is where the kernel shows the variables.
const Dir = "/sys/firmware/efi/efivars"

const (
	// globalVariable is the GUID of the specification's own variables.
	globalVariable = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	// attributes: kept without power, there before and after the system has started.
	attributes = 7
	active     = 1 // LOAD_OPTION_ACTIVE
	immutable  = 0x10
	// firstNumber is where the search for a free boot option begins: far from where
	// firmware and others put theirs.
	firstNumber, lastNumber = 0x0b00, 0x0bff
)

// Variables are those of a machine.
type Variables struct {
	// Dir is [Dir], or a directory of a test.
	Dir string
}

// Available says why the variables cannot be used; nil if they can.
func (v Variables) Available() error {
	entries, err := os.ReadDir(v.Dir)
	if err == nil && len(entries) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fmt.Errorf("the variables of the firmware in %s: %w; was the machine started by UEFI firmware?", v.Dir, err)
	}
	return nil
}

func (v Variables) file(name string) string { return filepath.Join(v.Dir, name+"-"+globalVariable) }

// read returns the value; what is not there is fs.ErrNotExist.
func (v Variables) read(name string) ([]byte, error) {
	data, err := os.ReadFile(v.file(name))
	if err != nil {
		return nil, err
	}
	if len(data) < 4 {
		return nil, fmt.Errorf("variable %s of the firmware has no attributes", name)
	}
	return data[4:], nil
}

// write sets a variable and looks whether it stays.
func (v Variables) write(name string, value []byte) error {
	if err := v.unlock(name); err != nil {
		return err
	}
	f, err := os.OpenFile(v.file(name), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("set variable %s of the firmware: %w", name, err)
	}
	// One write is one call of the firmware.
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), value...))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set variable %s of the firmware: %w", name, err)
	}
	if got, err := v.read(name); err != nil || !bytes.Equal(got, value) {
		return fmt.Errorf("the firmware does not keep variable %s", name)
	}
	return nil
}

func (v Variables) remove(name string) error {
	if err := v.unlock(name); err != nil {
		return err
	}
	if err := os.Remove(v.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove variable %s of the firmware: %w", name, err)
	}
	return nil
}

// unlock takes away the flag by which the kernel keeps variables from being removed by
// accident.
func (v Variables) unlock(name string) error {
	f, err := os.Open(v.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&immutable == 0 {
		return nil // or a file system without flags
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags&^immutable)); err != nil {
		return fmt.Errorf("unlock variable %s of the firmware: %w", name, err)
	}
	return nil
}

// SecureBoot says whether the firmware starts signed programs only.
func (v Variables) SecureBoot() bool {
	value, err := v.read("SecureBoot")
	return err == nil && len(value) == 1 && value[0] == 1
}

// Option is a program on a partition.
type Option struct {
	Description string
	// Number of the partition, from 1, and the partition itself.
	Number    int
	Partition gpt.Partition
	// Path of the program, with slashes.
	Path string
}

// encode makes an EFI_LOAD_OPTION.
func (o Option) encode() []byte {
	le := binary.LittleEndian
	// The device path: a partition of a hard disk, a file, the end.
	const mediaPath, hardDrive, filePath, hardDriveSize, partitionGPT, signatureGUID = 4, 1, 4, 42, 2, 2
	path := []byte{mediaPath, hardDrive, hardDriveSize, 0}
	path = le.AppendUint32(path, uint32(o.Number))
	path = le.AppendUint64(path, o.Partition.First)
	path = le.AppendUint64(path, o.Partition.Last-o.Partition.First+1)
	path = append(path, o.Partition.GUID[:]...)
	path = append(path, partitionGPT, signatureGUID)
	file := encodeText(`\` + strings.ReplaceAll(o.Path, "/", `\`))
	path = le.AppendUint16(append(path, mediaPath, filePath), uint16(4+len(file)))
	path = append(append(path, file...), 0x7f, 0xff, 4, 0)

	out := le.AppendUint32(nil, active)
	out = le.AppendUint16(out, uint16(len(path)))
	return append(append(out, encodeText(o.Description)...), path...)
}

func encodeText(s string) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(s + "\x00")) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// describes says whether a boot option has a description.
func describes(option []byte, description string) bool {
	return len(option) > 6 && bytes.HasPrefix(option[6:], encodeText(description))
}

const bootNext = "BootNext"

// Define tells the firmware about a program, which is not started by that, and returns the
// number of the boot option.
func (v Variables) Define(o Option) (uint16, error) {
	if err := v.Available(); err != nil {
		return 0, err
	}
	number, err := v.number(o.Description)
	if err != nil {
		return 0, err
	}
	name := fmt.Sprintf("Boot%04X", number)
	if old, err := v.read(name); err == nil && bytes.Equal(old, o.encode()) {
		return number, nil
	}
	return number, v.write(name, o.encode())
}

// StartOnce has the firmware start a program at the next start of the machine, and never
// after that. It is sure that the firmware has taken note when it returns nil.
func (v Variables) StartOnce(o Option) error {
	number, err := v.Define(o)
	if err != nil {
		return err
	}
	return v.write(bootNext, binary.LittleEndian.AppendUint16(nil, number))
}

// number finds the boot option with a description, or a free one.
func (v Variables) number(description string) (uint16, error) {
	free := -1
	for n := firstNumber; n <= lastNumber; n++ {
		option, err := v.read(fmt.Sprintf("Boot%04X", n))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if free < 0 {
				free = n
			}
		case err != nil:
			return 0, err
		case describes(option, description):
			return uint16(n), nil
		}
	}
	if free < 0 {
		return 0, errors.New("the firmware has no free boot option")
	}
	return uint16(free), nil
}

// Pending says whether the firmware is still to start, once, what has a description: it has
// not obeyed if the machine was started since.
func (v Variables) Pending(description string) (bool, error) {
	next, err := v.read(bootNext)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || len(next) != 2 {
		return false, errors.Join(err, errors.New("variable BootNext of the firmware makes no sense"))
	}
	option, err := v.read(fmt.Sprintf("Boot%04X", binary.LittleEndian.Uint16(next)))
	return err == nil && describes(option, description), nil
}

// Keeps says whether there still is a boot option with a description: firmware without a place
// for its variables loses them at each start.
func (v Variables) Keeps(description string) (bool, error) {
	for n := firstNumber; n <= lastNumber; n++ {
		option, err := v.read(fmt.Sprintf("Boot%04X", n))
		if err == nil && describes(option, description) {
			return true, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// Cancel takes back [Variables.StartOnce].
func (v Variables) Cancel(description string) error {
	pending, err := v.Pending(description)
	if err != nil || !pending {
		return err
	}
	return v.remove(bootNext)
}
