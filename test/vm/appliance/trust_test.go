package appliance

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/bothy-os/bothy/test/vm/qemu"
)

const (
	mib = 1 << 20
	// slotOffset is behind the ESP. usedByte is in the superblock of the file system there,
	// which is read whenever it is mounted.
	slotOffset = (1 + 256) * mib
	usedByte   = 1024 + 100
)

// The root hash is in the boot file, and every block that is read is checked with it.
func TestAChangedBitInTheRootIsCaught(t *testing.T) {
	b := newBench(t)
	disk := b.disk(t)
	flip(t, disk, slotOffset+usedByte)
	m := b.boot(t, ordinary, qemu.Disk{Serial: "system", File: disk})
	m.await(t, bootLimit, regexp.MustCompile(`device-mapper: verity: .* is corrupted`))
	m.await(t, bootLimit, regexp.MustCompile(`Kernel panic - not syncing: .*verity.*`))
	if firstPicture.MatchString(m.Console.String()) {
		t.Error("the machine went on with what was changed")
	}
	<-m.Done() // it starts again by itself, which ends this QEMU
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1
	if _, err := f.WriteAt(one, at); err != nil {
		t.Fatal(err)
	}
}

// With Secure Boot the firmware starts what its owner has signed, and nothing else.
func TestSecureBoot(t *testing.T) {
	b := newBench(t)
	disk := b.disk(t)
	t.Run("unsigned", func(t *testing.T) {
		m := b.boot(t, secure, qemu.Disk{Serial: "system", File: disk})
		m.await(t, bootLimit, regexp.MustCompile(`(?i)Access Denied|Security Violation`))
		if regexp.MustCompile(`Linux version`).MatchString(m.Console.String()) {
			t.Error("a kernel that nobody has signed was started")
		}
	})
	t.Run("signed", func(t *testing.T) {
		b.sign(t, disk)
		m := b.boot(t, secure, qemu.Disk{Serial: "system", File: disk})
		m.await(t, bootLimit, regexp.MustCompile(`state +waiting for a boot configuration`))
		if !regexp.MustCompile(`EFI stub: UEFI Secure Boot is enabled`).MatchString(m.Console.String()) {
			t.Error("nothing says that Secure Boot is in force")
		}
	})
}

// sign replaces the boot file of a disk by one that the test firmware trusts.
func (b *bench) sign(t *testing.T, disk string) {
	t.Helper()
	const secret = "snakeoil" // of the key that the package ships for tests
	key, signed := filepath.Join(b.dir, "db.key"), filepath.Join(b.dir, "signed.efi")
	b.run(t, "openssl", "pkey", "-in", "/usr/share/ovmf/PkKek-1-snakeoil.key", "-passin", "pass:"+secret, "-out", key)
	b.run(t, b.paths.Bothy(), "os", "sign", "--key", key, "--cert", "/usr/share/ovmf/PkKek-1-snakeoil.pem", "--out", signed, b.image+".efi")
	b.run(t, "mcopy", "-o", "-i", disk+"@@1M", signed, "::EFI/BOOT/BOOTX64.EFI")
}
