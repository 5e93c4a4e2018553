package devmapper

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestTablesAreLaidOutAsTheKernelReadsThem(t *testing.T) {
	const table = "1 8:1 8:1 4096"
	b := spec("verity", table, 1<<20)
	if len(b)%8 != 0 || len(b) < specSize+len(table)+1 {
		t.Errorf("%d bytes", len(b))
	}
	ne := binary.NativeEndian
	if start, length, next := ne.Uint64(b), ne.Uint64(b[8:]), ne.Uint32(b[20:]); start != 0 || length != 2048 || int(next) != len(b) {
		t.Errorf("start %d, length %d, next %d", start, length, next)
	}
	if kind := string(bytes.TrimRight(b[24:40], "\x00")); kind != "verity" {
		t.Errorf("target %q", kind)
	}
	if got := string(bytes.TrimRight(b[specSize:], "\x00")); got != table {
		t.Errorf("table %q", got)
	}
}
