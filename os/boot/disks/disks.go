// Package disks finds partitions of the machine by the names in their partition tables,
// as the kernel has read them. It opens no device.
package disks

import (
	"bufio"
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names of the appliance's partitions.
const (
	ESP   = "bothy-esp"
	RootA = "bothy-root-a"
	RootB = "bothy-root-b"
	Data  = "bothy-data"
)

// RootDevice is the device of the device mapper that the root file system is on.
const RootDevice = "/dev/dm-0"

const sysBlock = "/sys/class/block"

// Partition is one partition of a disk.
type Partition struct {
	// Name in the partition table; Device, such as /dev/vda2; Number is its devices',
	// such as 254:2; Disk is the device it is part of; Index counts from 1.
	Name, Device, Number, Disk string
	Index                      string
}

// Partitions lists those whose name is one of the names, in the order of their devices.
func Partitions(names ...string) []Partition { return partitions(sysBlock, names) }

func partitions(sys string, names []string) []Partition {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil
	}
	var out []Partition
	for _, e := range entries {
		fields := uevent(filepath.Join(sys, e.Name(), "uevent"))
		if !slices.Contains(names, fields["PARTNAME"]) {
			continue
		}
		link, err := os.Readlink(filepath.Join(sys, e.Name()))
		if err != nil {
			continue // unplugged meanwhile
		}
		out = append(out, Partition{
			Name: fields["PARTNAME"], Device: "/dev/" + fields["DEVNAME"], Number: fields["MAJOR"] + ":" + fields["MINOR"],
			Disk: "/dev/" + filepath.Base(filepath.Dir(link)), Index: fields["PARTN"],
		})
	}
	slices.SortFunc(out, func(a, b Partition) int { return cmp.Compare(a.Device, b.Device) })
	return out
}

// Beneath returns the partition that a device of the device mapper lies on, by its
// device; "" if there is none.
func Beneath(mapped string) string {
	entries, err := os.ReadDir(filepath.Join(sysBlock, filepath.Base(mapped), "slaves"))
	if err != nil || len(entries) == 0 {
		return ""
	}
	return "/dev/" + entries[0].Name()
}

// All lists every block device that has a size.
func All() []string {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		size, err := os.ReadFile(filepath.Join(sysBlock, e.Name(), "size"))
		if err == nil && strings.TrimSpace(string(size)) != "0" {
			out = append(out, "/dev/"+e.Name())
		}
	}
	return out
}

func uevent(file string) map[string]string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			out[key] = value
		}
	}
	return out
}
