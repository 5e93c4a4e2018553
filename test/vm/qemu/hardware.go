package qemu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Binary is the program that is run.
const Binary = "qemu-system-x86_64"

// Config is the hardware of a machine and what it boots.
type Config struct {
	Accelerator Accelerator
	CPUs        int
	MemoryMiB   int
	// Kernel, Initrd and CommandLine boot a Linux directly. Without a Kernel the
	// firmware boots from the first disk.
	Kernel, Initrd, CommandLine string
	Disks                       []Disk
	// Network gives the machine a network card with nothing behind it but QEMU
	// itself, 10.0.2.2: nothing leaves the host.
	Network bool
	// Ports are serial lines to the caller, by name. The machine finds the name in
	// /sys/class/virtio-ports/*/name.
	Ports map[string]*os.File
	// Restarts lets the machine start itself again; without it that ends the machine.
	Restarts bool
	// ConsoleFile keeps what the machine prints.
	ConsoleFile string
	// Args are further arguments of QEMU.
	Args []string
}

// Disk is a disk backed by a file.
type Disk struct {
	// Serial names the disk: /sys/block/*/serial.
	Serial string
	// File holds the content, raw. Writes go to it. It may be an address that QEMU knows, such
	// as nbd:unix:PATH, behind which is a disk with a write cache of its own.
	File string
	// ReadOnly keeps the machine from writing.
	ReadOnly bool
}

// firstExtraFile is the descriptor of the first of exec.Cmd's ExtraFiles.
const firstExtraFile = 3

// args is the command line, and the files that the process must inherit.
func (c Config) args() (args []string, files []*os.File) {
	add := func(a ...string) { args = append(args, a...) }
	add("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-serial", "stdio")
	if !c.Restarts {
		add("-no-reboot")
	}
	add("-machine", "q35", "-accel", string(c.Accelerator), "-cpu", c.Accelerator.cpu())
	add("-smp", strconv.Itoa(c.CPUs), "-m", strconv.Itoa(c.MemoryMiB)+"M")
	add("-device", "virtio-rng-pci")
	if c.Kernel != "" {
		add("-kernel", c.Kernel, "-append", c.CommandLine)
	}
	if c.Initrd != "" {
		add("-initrd", c.Initrd)
	}
	for i, d := range c.Disks {
		cache := "unsafe" // the host does not lose power
		if strings.HasPrefix(d.File, "nbd:") {
			cache = "writeback" // what is not flushed may be lost
		}
		drive := fmt.Sprintf("if=none,id=disk%d,format=raw,cache=%s,discard=unmap,file=%s", i, cache, d.File)
		if d.ReadOnly {
			drive += ",readonly=on"
		}
		add("-drive", drive, "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s", i, d.Serial))
	}
	if c.Network {
		add("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net")
	}
	if len(c.Ports) > 0 {
		add("-device", "virtio-serial-pci")
	}
	for name, f := range c.Ports {
		fd := firstExtraFile + len(files)
		files = append(files, f)
		add("-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", fd, fd), "-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s", fd, name))
	}
	return append(args, c.Args...), files
}
