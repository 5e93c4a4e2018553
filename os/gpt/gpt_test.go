package gpt

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const diskSize = 64 << 20

func example() *Table {
	return &Table{Disk: DeriveGUID("disk"), Partitions: []Partition{
		{Type: TypeESP, GUID: DeriveGUID("esp"), First: 2048, Last: 4095, Name: "esp"},
		{Type: TypeLinux, GUID: DeriveGUID("data"), First: 4096, Last: 8191, Name: "data"},
	}}
}

func newDisk(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	disk, want := newDisk(t, diskSize), example()
	if err := want.Write(disk, diskSize); err != nil {
		t.Fatal(err)
	}
	got, err := Read(disk, diskSize)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, damaged := range []int64{1 * SectorSize, 2 * SectorSize} {
		if _, err := disk.WriteAt([]byte("damage"), damaged+60); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(disk, diskSize); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("with a damaged first copy: %+v, %v", got, err)
		}
	}
	if _, err := disk.WriteAt([]byte("damage"), diskSize-SectorSize+60); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(disk, diskSize); !errors.Is(err, ErrNone) {
		t.Errorf("both copies are damaged: %v", err)
	}
}

func TestGUIDsAreWrittenAsUsual(t *testing.T) {
	const esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	if got := TypeESP.String(); got != esp {
		t.Errorf("got %s", got)
	}
	if TypeESP[0] != 0x28 {
		t.Errorf("the first group is not reversed on disk: %x", TypeESP)
	}
	first, again := DeriveGUID("a"), DeriveGUID("a")
	if first != again || first == DeriveGUID("b") {
		t.Error("GUIDs do not follow from their seeds")
	}
}

func TestPartitionsThatDoNotFitAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Table){
		"overlap": func(t *Table) { t.Partitions[1].First = 4000 },
		"end":     func(t *Table) { t.Partitions[1].Last = diskSize },
		"start":   func(t *Table) { t.Partitions[0].First = 1 },
		"name":    func(t *Table) { t.Partitions[0].Name = strings.Repeat("x", 37) },
	} {
		table := example()
		change(table)
		if err := table.Write(newDisk(t, diskSize), diskSize); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestOthersFindNothingWrong(t *testing.T) {
	sgdisk, err := exec.LookPath("sgdisk")
	if err != nil {
		t.Skip("sgdisk is not installed")
	}
	disk := newDisk(t, diskSize)
	if err := example().Write(disk, diskSize); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sgdisk, "-v", disk.Name()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("%v: %s", err, out)
	}
}
