package disks

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestDisksAreDescribed(t *testing.T) {
	root := t.TempDir()
	sys := filepath.Join(root, "class", "block")
	if err := os.MkdirAll(sys, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"devices/pci/vda/uevent":                   "MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n",
		"devices/pci/vda/size":                     "16777216\n",
		"devices/pci/vda/serial":                   "system",
		"devices/pci/vda/queue/logical_block_size": "512\n",
		"devices/pci/vda/vda1/uevent":              "MAJOR=254\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nPARTNAME=bothy-esp\n",
		"devices/pci/vda/vda1/partition":           "1\n",
		"devices/pci/vda/vda2/uevent":              "MAJOR=254\nMINOR=2\nDEVNAME=vda2\nDEVTYPE=partition\n",
		"devices/pci/vda/vda2/partition":           "2\n",
		"devices/pci/sdb/uevent":                   "MAJOR=8\nMINOR=16\nDEVNAME=sdb\nDEVTYPE=disk\n",
		"devices/pci/sdb/size":                     "2048\n",
		"devices/pci/sdb/removable":                "1\n",
		"devices/pci/sdb/ro":                       "1\n",
		"devices/pci/sdb/device/model":             "Stick  \n",
		"devices/pci/sdb/device/vpd_pg80":          "\x00\x80\x00\x04AB12",
		"devices/pci/sr0/uevent":                   "MAJOR=11\nMINOR=0\nDEVNAME=sr0\nDEVTYPE=disk\n",
		"devices/pci/sr0/size":                     "2048\n",
		"devices/virtual/dm-0/uevent":              "MAJOR=253\nMINOR=0\nDEVNAME=dm-0\nDEVTYPE=disk\n",
		"devices/virtual/dm-0/size":                "2048\n",
		"devices/pci/sdc/uevent":                   "MAJOR=8\nMINOR=32\nDEVNAME=sdc\nDEVTYPE=disk\n",
		"devices/pci/sdc/size":                     "0\n", // a reader without a card
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, at := range map[string]string{"vda": "pci", "sdb": "pci", "sr0": "pci", "sdc": "pci", "dm-0": "virtual"} {
		if err := os.Symlink("../../devices/"+at+"/"+name, filepath.Join(sys, name)); err != nil {
			t.Fatal(err)
		}
	}
	mountinfo := filepath.Join(root, "mountinfo")
	if err := os.WriteFile(mountinfo, []byte("20 1 254:2 / /var/lib/bothy rw - ext4 /dev/vda2 rw\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []Disk{
		{Device: "/dev/sdb", Size: 1 << 20, Serial: "AB12", Model: "Stick", Removable: true, ReadOnly: true},
		{Device: "/dev/vda", Size: 8 << 30, Serial: "system", SectorSize: 512, Partitions: []string{"bothy-esp", "vda2"}, InUse: "mounted on /var/lib/bothy"},
	}
	if got := list(sys, mountinfo); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
