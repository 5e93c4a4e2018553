package appliance

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/bothy-os/bothy/test/vm/qemu"
)

const (
	wrongConfig = "apiVersion: bothy.dev/v1alpha1\nkind: BootConfig\nrepository: {url: 'https://git.example.org/site.git', brunch: main}\n"
	goodConfig  = "apiVersion: bothy.dev/v1alpha1\nkind: BootConfig\nmachineName: by-firmware\n" +
		"repository: {url: 'https://192.0.2.1/site.git', path: clusters/default}\ntrust: {none: true}\nnetwork: {address: 10.0.2.77/24, gateway: 10.0.2.2}\n"
)

// A hypervisor hands over the configuration: a wrong one is named and not used, and the
// next place is looked at.
func TestConfigurationFromTheFirmware(t *testing.T) {
	b := newBench(t)
	wrong := filepath.Join(b.dir, "wrong.yaml")
	if err := os.WriteFile(wrong, []byte(wrongConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	b.args = []string{"-fw_cfg", "name=opt/bothy/boot.yaml,file=" + wrong}
	disk := qemu.Disk{Serial: "system", File: b.disk(t)}
	m := b.boot(t, ordinary, disk)
	m.await(t, bootLimit, regexp.MustCompile(`problem .*brunch`))
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	b.args = append(b.args, "-smbios", "type=11,value=bothy.boot.b64="+base64.StdEncoding.EncodeToString([]byte(goodConfig)))
	m = b.boot(t, ordinary, disk)
	m.await(t, bootLimit, regexp.MustCompile(`name +by-firmware\s+address +10\.0\.2\.77 on eth0`))
}
