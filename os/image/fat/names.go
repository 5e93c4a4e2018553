package fat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
)

const (
	entrySize  = 32
	attrLabel  = 0x08
	attrDir    = 0x10
	attrFile   = 0x20
	attrLong   = 0x0f
	longUnits  = 13
	maxName    = 255
	lastInName = 0x40
)

// entries is the content of a directory.
type entries struct {
	data       []byte
	date, time uint16
	// short are the names of eight and three characters that are taken.
	short map[string]bool
}

func newEntries(t time.Time) *entries {
	t = t.UTC()
	year := min(max(t.Year()-1980, 0), 127)
	return &entries{
		date:  uint16(year<<9 | int(t.Month())<<5 | t.Day()),
		time:  uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2),
		short: map[string]bool{},
	}
}

// sizeOf is how many bytes the entries of a directory will take.
func (e *entries) sizeOf(n *node, label string) int {
	count := 2 // . and ..
	if label != "" {
		count = 1
	}
	for _, c := range n.children {
		count++
		if !isShort(c.name) {
			count += longEntries(c.name)
		}
	}
	return count * entrySize
}

func longEntries(name string) int {
	return (len(utf16.Encode([]rune(name))) + longUnits - 1) / longUnits
}

func (e *entries) label(name string) { e.raw(fmt.Sprintf("%-11s", name), attrLabel, 0, 0) }

func (e *entries) dots(self, parent uint32) {
	e.raw(fmt.Sprintf("%-11s", "."), attrDir, self, 0)
	e.raw(fmt.Sprintf("%-11s", ".."), attrDir, parent, 0)
}

// add appends the entries of a file or directory that begins at a cluster.
func (e *entries) add(n *node, first uint32) error {
	if n.name == "" || len(utf16.Encode([]rune(n.name))) > maxName || strings.ContainsAny(n.name, `"*/:<>?\|`) {
		return fmt.Errorf("a FAT file system has no files of the name %q", n.name)
	}
	attributes := byte(attrFile)
	if n.dir {
		attributes = attrDir
	}
	short := pack(n.name)
	if !isShort(n.name) {
		short = e.standIn(n.name)
		e.long(n.name, short)
	}
	if e.short[short] {
		return fmt.Errorf("the name %q is there twice", n.name)
	}
	e.short[short] = true
	e.raw(short, attributes, first, uint32(len(n.data)))
	return nil
}

func (e *entries) raw(short string, attributes byte, first, size uint32) {
	d := make([]byte, entrySize)
	le := binary.LittleEndian
	copy(d, short)
	d[11] = attributes
	for _, at := range []int{14, 22} { // made, written
		le.PutUint16(d[at:], e.time)
		le.PutUint16(d[at+2:], e.date)
	}
	le.PutUint16(d[18:], e.date)
	le.PutUint16(d[20:], uint16(first>>16))
	le.PutUint16(d[26:], uint16(first))
	le.PutUint32(d[28:], size)
	e.data = append(e.data, d...)
}

// isShort tells names that need no entries of their own: at most eight characters, a dot,
// and three, all of them plain and in upper case.
func isShort(name string) bool {
	base, ext, dotted := strings.Cut(name, ".")
	if base == "" || len(base) > 8 || len(ext) > 3 || dotted && ext == "" {
		return false
	}
	return strings.Trim(base+ext, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// pack fills a short name with blanks.
func pack(name string) string {
	base, ext, _ := strings.Cut(name, ".")
	return fmt.Sprintf("%-8s%-3s", base, ext)
}

// standIn makes a short name for a long one.
func (e *entries) standIn(name string) string {
	clean := func(s string, most int) string {
		s = strings.Map(func(r rune) rune {
			if strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", r) {
				return r
			}
			return -1
		}, strings.ToUpper(s))
		return s[:min(len(s), most)]
	}
	base, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		base, ext = name[:i], name[i+1:]
	}
	for n := 1; ; n++ {
		number := fmt.Sprintf("~%d", n)
		short := fmt.Sprintf("%-8s%-3s", clean(base, 8-len(number))+number, clean(ext, 3))
		if !e.short[short] {
			return short
		}
	}
}

// long appends the entries that hold a long name, last part first.
func (e *entries) long(name, short string) {
	units := utf16.Encode([]rune(name))
	count := longEntries(name)
	if len(units)%longUnits != 0 {
		units = append(units, 0)
	}
	for len(units) < count*longUnits {
		units = append(units, 0xffff)
	}
	for i := count; i > 0; i-- {
		d := make([]byte, entrySize)
		d[0] = byte(i)
		if i == count {
			d[0] |= lastInName
		}
		d[11], d[13] = attrLong, checksum(short)
		for j, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			binary.LittleEndian.PutUint16(d[at:], units[(i-1)*longUnits+j])
		}
		e.data = append(e.data, d...)
	}
}

// checksum ties long entries to the short one that follows them.
func checksum(short string) byte {
	var sum byte
	for i := range len(short) {
		sum = sum>>1 | sum<<7
		sum += short[i]
	}
	return sum
}
