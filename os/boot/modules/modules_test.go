package modules

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func testSet(t *testing.T) (*Set, *[]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": "kernel/drivers/virtio/virtio.ko:\n" +
			"kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n" +
			"kernel/drivers/net/virtio_net.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n" +
			"kernel/net/dm-verity.ko:\n",
		"modules.alias":   "alias virtio:d00000001v* virtio_net\nalias fs-odd dm_verity\nalias net-pf-16-proto-[0-9] dm_verity\nalias of:N*T*Cvendor,a/b virtio_net\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	loaded := &[]string{}
	return &Set{dir: dir, load: func(file string) error { *loaded = append(*loaded, filepath.Base(file)); return nil }}, loaded
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	for asked, want := range map[string][]string{
		"virtio_net":                {"virtio.ko", "virtio_ring.ko", "virtio_net.ko"},
		"virtio-net":                {"virtio.ko", "virtio_ring.ko", "virtio_net.ko"},
		"virtio:d00000001v00001AF4": {"virtio.ko", "virtio_ring.ko", "virtio_net.ko"},
		"of:NxTyCvendor,a/b":        {"virtio.ko", "virtio_ring.ko", "virtio_net.ko"},
		"fs-odd":                    {"dm-verity.ko"},
		"net-pf-16-proto-5":         {"dm-verity.ko"},
		"ext4":                      nil,
	} {
		s, loaded := testSet(t)
		if err := s.Load(asked); err != nil || !slices.Equal(*loaded, want) {
			t.Errorf("%s: %v, %v", asked, *loaded, err)
		}
	}
}

func TestUnknownModulesAreSaidAndOthersLoaded(t *testing.T) {
	s, loaded := testSet(t)
	err := s.Load("nonsense", "dm_verity", "pci:v00001234")
	if !errors.Is(err, ErrUnknown) || !slices.Equal(*loaded, []string{"dm-verity.ko"}) {
		t.Errorf("%v, %v", *loaded, err)
	}
}

func TestHardwareIsFoundInSysfs(t *testing.T) {
	sys := t.TempDir()
	for path, alias := range map[string]string{"pci0/net/modalias": "pci:a\n", "pci0/modalias": "pci:b\n", "acpi/modalias": "\n", "x/modalias": "pci:a\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, path), []byte(alias), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := Wanted(sys); !slices.Equal(got, []string{"pci:a", "pci:b"}) {
		t.Errorf("%q", got)
	}
}

func TestEventsOfTheKernel(t *testing.T) {
	e := parseEvent([]byte("add@/devices/x\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=vda1\x00"))
	if e.Action != "add" || e.Fields["DEVNAME"] != "vda1" || e.Fields["SUBSYSTEM"] != "block" {
		t.Errorf("%+v", e)
	}
}
