package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/boot/modules"
)

func TestSysctlsAreSetAndPutBack(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	for file, value := range map[string]string{"vm/swappiness": "60\n", "net/ipv4/tcp_rmem": "4096\t131072\t6291456\n"} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	value := func(file string) string {
		data, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	again := func() *Sysctls { return &Sysctls{Root: root, OriginalsFile: filepath.Join(dir, "originals")} }
	set := &Settings{SystemSpec: v1alpha1.SystemSpec{Sysctls: map[string]string{"vm.swappiness": "10", "net/ipv4/tcp_rmem": "4096 131072 6291456"}}}
	if err := again().Apply(t.Context(), &Settings{}, set); err != nil || value("vm/swappiness") != "10" {
		t.Fatalf("%s, %v", value("vm/swappiness"), err)
	}
	if got := value("net/ipv4/tcp_rmem"); !strings.Contains(got, "\t") {
		t.Errorf("what was so already is written: %q", got)
	}
	// Another process, which knows of the first by what is in memory, puts it back.
	if err := again().Apply(t.Context(), set, &Settings{}); err != nil || value("vm/swappiness") != "60" {
		t.Errorf("%s, %v", value("vm/swappiness"), err)
	}
	unknown := &Settings{SystemSpec: v1alpha1.SystemSpec{Sysctls: map[string]string{"vm.swapiness": "10"}}}
	if err := again().Apply(t.Context(), &Settings{}, unknown); err == nil || !strings.Contains(err.Error(), "vm.swapiness: this kernel has no such setting") {
		t.Errorf("%v", err)
	}
	limited := again()
	limited.Only = Namespaced
	if err := limited.Apply(t.Context(), &Settings{}, set); err != nil || value("vm/swappiness") != "60" {
		t.Errorf("a setting of the whole machine was set: %s, %v", value("vm/swappiness"), err)
	}
}

func TestUnknownModulesAreNamed(t *testing.T) {
	p := &Modules{Load: func(names ...string) error {
		if names[0] == "nonsense" {
			return fmt.Errorf("%w: nonsense", modules.ErrUnknown)
		}
		return nil
	}}
	to := &Settings{SystemSpec: v1alpha1.SystemSpec{Modules: []string{"wireguard", "nonsense"}}}
	if err := p.Apply(t.Context(), &Settings{}, to); err == nil || !strings.HasPrefix(err.Error(), "nonsense: the image has no such module") {
		t.Errorf("%v", err)
	}
}

func TestDisksAreFoundPreparedAndMounted(t *testing.T) {
	const size = 256 << 20
	dir := t.TempDir()
	file := func(name string, head string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		return path
	}
	blank, foreign := file("blank", ""), file("foreign", "somebody's data")
	var did []string
	p := &Disks{
		Dir: filepath.Join(dir, "mnt"),
		List: func() []disks.Disk {
			return []disks.Disk{{Device: blank, Size: size, Serial: "B1"}, {Device: foreign, Size: size, Serial: "F1"}, {Device: "/dev/x", Serial: "P1", Partitions: []string{"x1"}}}
		},
		Mount:   func(device, at string) error { did = append(did, "mount "+device+" "+at); return nil },
		Unmount: func(at string) error { did = append(did, "unmount "+at); return nil },
	}
	good := &Settings{Disks: []v1alpha1.DiskSpec{{Name: "archive", Serial: "B1"}}}
	if err := p.Apply(t.Context(), &Settings{}, good); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), good, &Settings{}); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(p.Dir, "archive")
	if got := strings.Join(did, "\n"); got != "mount "+blank+" "+at+"\nunmount "+at {
		t.Errorf("%s", got)
	}
	for serial, want := range map[string]string{"F1": "not blank", "P1": "not blank", "Z9": "0 disks are Z9; this machine has"} {
		bad := &Settings{Disks: []v1alpha1.DiskSpec{{Name: "d", Serial: serial}}}
		if err := p.Apply(t.Context(), &Settings{}, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", serial, err)
		}
	}
	if data, err := os.ReadFile(foreign); err != nil || !strings.HasPrefix(string(data), "somebody's data") {
		t.Error("what was on the disk is gone")
	}
}
