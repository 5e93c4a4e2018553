package reset

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
)

func TestAPartitionIsMadeBlankOnce(t *testing.T) {
	const size, dataSize = 64 << 20, 20 << 20
	dir := t.TempDir()
	disk, data := filepath.Join(dir, "disk"), filepath.Join(dir, "data")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := &gpt.Table{Disk: gpt.DeriveGUID("d"), Partitions: []gpt.Partition{
		{Type: gpt.TypeESP, GUID: gpt.DeriveGUID("e"), First: 2048, Last: 4095, Name: disks.ESP},
		{Type: gpt.TypeLinux, GUID: gpt.DeriveGUID("p"), First: 4096, Last: 8191, Name: disks.Data},
	}}
	full := bytes.Repeat([]byte("x"), dataSize)
	if err := errors.Join(f.Truncate(size), table.Write(f, size), os.WriteFile(data, full, 0o600)); err != nil {
		t.Fatal(err)
	}
	p := disks.Partition{Name: disks.Data, Device: data, Disk: disk, Index: "2"}
	if done, err := Finish(p); done || err != nil {
		t.Fatalf("nobody asked for it: %v, %v", done, err)
	}
	if err := change(p, func(part *gpt.Partition) { part.Attributes |= wanted }); err != nil {
		t.Fatal(err)
	}
	// The power goes before the bit is cleared: it is done again.
	for range 2 {
		if err := change(p, func(part *gpt.Partition) { part.Attributes |= wanted }); err != nil {
			t.Fatal(err)
		}
		if done, err := Finish(p); !done || err != nil {
			t.Fatalf("%v, %v", done, err)
		}
		got, err := os.ReadFile(data)
		if err != nil || len(got) != dataSize || len(bytes.Trim(got[:headSize], "\x00")) > 0 || len(bytes.Trim(got[dataSize-tailSize:], "\x00")) > 0 {
			t.Fatalf("the partition is not blank, %v", err)
		}
	}
	if done, err := Finish(p); done || err != nil {
		t.Errorf("it is made blank again: %v, %v", done, err)
	}
	after, err := gpt.Read(f, size)
	if err != nil || after.Partitions[1].Attributes != 0 || after.Partitions[0] != table.Partitions[0] {
		t.Errorf("%+v, %v", after, err)
	}
	for _, wrong := range []disks.Partition{{Name: disks.Data, Disk: disk, Index: "1"}, {Name: disks.Data, Disk: disk, Index: "9"}} {
		if _, err := Finish(wrong); err == nil {
			t.Errorf("%+v is taken for the data partition", wrong)
		}
	}
}
