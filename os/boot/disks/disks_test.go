package disks

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestPartitionsAreFoundByName(t *testing.T) {
	root := t.TempDir()
	sys := filepath.Join(root, "class", "block")
	if err := os.MkdirAll(sys, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"devices/pci/vda":      "MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n",
		"devices/pci/vda/vda2": "MAJOR=254\nMINOR=2\nDEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=bothy-root-a\n",
		"devices/pci/vda/vda1": "MAJOR=254\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=bothy-esp\n",
	} {
		dir := filepath.Join(root, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "uevent"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../"+path, filepath.Join(sys, filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
	}
	want := []Partition{{Name: RootA, Device: "/dev/vda2", Number: "254:2", Disk: "/dev/vda", Index: "2"}}
	if got := partitions(sys, []string{RootA, RootB}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
