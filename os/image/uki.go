package image

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
)

// section is a part of a boot file, as the UAPI group's specification of unified kernel
// images names it.
type section struct {
	name string
	data []byte
}

const (
	sectionHeaderSize = 40
	// readableData is the flags IMAGE_SCN_CNT_INITIALIZED_DATA and IMAGE_SCN_MEM_READ.
	readableData = 0x40000040
)

// makeUKI adds sections to the stub, which finds them by name when the firmware starts it.
func makeUKI(stub []byte, sections []section) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, fmt.Errorf("read the boot stub: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	head, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("the boot stub is no program for 64-bit firmware")
	}
	le := binary.LittleEndian
	signatureAt := int(le.Uint32(stub[0x3c:]))
	optionalAt := signatureAt + 4 + binary.Size(f.FileHeader)
	headersEnd := optionalAt + int(f.SizeOfOptionalHeader) + sectionHeaderSize*len(f.Sections)
	if headersEnd+sectionHeaderSize*len(sections) > int(head.SizeOfHeaders) {
		return nil, fmt.Errorf("the boot stub has no room for %d more section headers", len(sections))
	}
	address := uint32(0)
	for _, s := range f.Sections {
		address = max(address, alignUp(s.VirtualAddress+s.VirtualSize, head.SectionAlignment))
	}
	out := pad(bytes.Clone(stub), head.FileAlignment)
	for i, s := range sections {
		h := out[headersEnd+i*sectionHeaderSize:][:sectionHeaderSize]
		copy(h, s.name)
		le.PutUint32(h[8:], uint32(len(s.data)))
		le.PutUint32(h[12:], address)
		le.PutUint32(h[16:], alignUp(uint32(len(s.data)), head.FileAlignment))
		le.PutUint32(h[20:], uint32(len(out)))
		le.PutUint32(h[36:], readableData)
		out = pad(append(out, s.data...), head.FileAlignment)
		address = alignUp(address+uint32(len(s.data)), head.SectionAlignment)
	}
	le.PutUint16(out[signatureAt+6:], uint16(len(f.Sections)+len(sections)))
	le.PutUint32(out[optionalAt+56:], address) // SizeOfImage
	le.PutUint32(out[optionalAt+64:], 0)       // CheckSum, which nobody checks
	return out, nil
}

func alignUp(n, to uint32) uint32 { return (n + to - 1) / to * to }

func pad(b []byte, to uint32) []byte {
	return append(b, make([]byte, int(alignUp(uint32(len(b)), to))-len(b))...)
}
