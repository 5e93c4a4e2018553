package disks

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Disk is a whole disk, as the kernel knows it.
type Disk struct {
	// Device, such as /dev/vda.
	Device string `json:"device"`
	// Size in bytes.
	Size int64 `json:"size"`
	// Serial and Model are what the disk says of itself; some say nothing.
	Serial string `json:"serial,omitempty"`
	Model  string `json:"model,omitempty"`
	// Removable media, and disks that cannot be written to.
	Removable bool `json:"removable,omitempty"`
	ReadOnly  bool `json:"readOnly,omitempty"`
	// SectorSize is the size of a logical sector, in bytes.
	SectorSize int `json:"sectorSize"`
	// Partitions are their names in the partition table; those without one are called after their devices.
	Partitions []string `json:"partitions,omitempty"`
	// InUse says what uses the disk or one of its partitions, "" if nothing does.
	InUse string `json:"inUse,omitempty"`
}

// List returns all disks that can hold something, in the order of their devices.
func List() []Disk { return list(sysBlock, "/proc/self/mountinfo") }

func list(sys, mountinfo string) []Disk {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil
	}
	mounted := mounts(mountinfo)
	var out []Disk
	for _, e := range entries {
		dir := filepath.Join(sys, e.Name())
		fields := uevent(filepath.Join(dir, "uevent"))
		size, _ := strconv.ParseInt(attribute(dir, "size"), 10, 64)
		// Disks that lie on others, in memory or on a network are no disks here.
		if fields["DEVTYPE"] != "disk" || size == 0 || virtual(dir, e.Name()) {
			continue
		}
		const unit = 512 // of the attribute size, whatever the disk has
		d := Disk{
			Device: "/dev/" + fields["DEVNAME"], Size: size * unit, Serial: serial(dir), Model: attribute(dir, "device/model"),
			Removable: attribute(dir, "removable") == "1", ReadOnly: attribute(dir, "ro") == "1",
		}
		d.SectorSize, _ = strconv.Atoi(attribute(dir, "queue/logical_block_size"))
		d.look(dir, fields, mounted)
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Disk) int { return cmp.Compare(a.Device, b.Device) })
	return out
}

// look finds partitions, and what uses the disk.
func (d *Disk) look(dir string, fields, mounted map[string]string) {
	use := func(dir string, fields map[string]string) {
		if at := mounted[fields["MAJOR"]+":"+fields["MINOR"]]; at != "" {
			d.InUse = "mounted on " + at
		}
		if holders, err := os.ReadDir(filepath.Join(dir, "holders")); err == nil && len(holders) > 0 {
			d.InUse = "the system runs from it"
		}
	}
	use(dir, fields)
	parts, err := filepath.Glob(filepath.Join(dir, "*", "partition"))
	if err != nil {
		return
	}
	for _, p := range parts {
		part := filepath.Dir(p)
		fields := uevent(filepath.Join(part, "uevent"))
		name := fields["PARTNAME"]
		if name == "" {
			name = fields["DEVNAME"]
		}
		d.Partitions = append(d.Partitions, name)
		use(part, fields)
	}
}

func virtual(dir, name string) bool {
	if link, err := os.Readlink(dir); err == nil && strings.Contains(link, "/virtual/") {
		return true
	}
	return strings.HasPrefix(name, "sr") || strings.HasPrefix(name, "fd")
}

// serial is where the kind of disk has it.
func serial(dir string) string {
	for _, name := range []string{"serial", "device/serial"} {
		if s := attribute(dir, name); s != "" {
			return s
		}
	}
	// SCSI, and so SATA: page 0x80 of the vital product data, behind a header of four bytes.
	const header = 4
	page, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80"))
	if err != nil || len(page) < header {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(page[header:]), "\x00"))
}

func attribute(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// mounts are the places where devices are mounted, by their numbers.
func mounts(file string) map[string]string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for line := range strings.Lines(string(data)) {
		const number, place = 2, 4
		if f := strings.Fields(line); len(f) > place {
			out[f[number]] = f[place]
		}
	}
	return out
}
