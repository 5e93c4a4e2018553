package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/initramfs"
	"github.com/bothy-os/bothy/test/vm/debian"
	"github.com/bothy-os/bothy/test/vm/guest/wire"
	"github.com/bothy-os/bothy/test/vm/qemu"
	"github.com/bothy-os/bothy/test/vm/rootfs"
)

// Spec is what a test decides about a machine.
type Spec struct {
	// Kernel by the name in debian/packages.yaml.
	Kernel string
	// Root becomes the root disk. The modules of the kernel are added to it, so a tree is
	// for one kernel only.
	Root *rootfs.Tree
	// FreeMiB is the room on the root disk for what the machine writes; 256 if zero.
	FreeMiB int
	// CPUs and MemoryMiB are 2 and 1024 if zero.
	CPUs, MemoryMiB int
	// Disks are further disks, found at /dev/disk/by-id/virtio-SERIAL.
	Disks []qemu.Disk
	// Network gives the machine a network card, eth0, with 10.0.2.15/24 and a
	// default route to nowhere.
	Network bool
}

// bootLimit is how long a machine may take until it talks. Under emulation, on a
// busy host, it takes most of a minute.
const bootLimit = 5 * time.Minute

// bootModules are needed before there is a root disk to load modules from.
var bootModules = []string{"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "virtio_net", "ext4"}

// Boot switches a machine on and returns once it takes commands. It is
// switched off with the test.
func (l *Lab) Boot(t testing.TB, spec Spec) *Machine {
	t.Helper()
	start := time.Now()
	m, err := l.boot(t, spec)
	if err != nil && m != nil && m.hardware.Broke() {
		t.Logf("the emulator broke the kernel, another machine is started: %v", err)
		m.end(t)
		m, err = l.boot(t, spec)
	}
	if m != nil {
		t.Cleanup(func() { m.end(t) })
	}
	if err != nil {
		t.Fatalf("boot kernel %s: %v", spec.Kernel, err)
	}
	t.Logf("kernel %s is up after %.1f s under %s, %.1f times as slow as this host", m.Release, time.Since(start).Seconds(), l.Accelerator, m.slowness)
	return m
}

func (l *Lab) boot(t testing.TB, spec Spec) (*Machine, error) {
	ctx, dir := t.Context(), l.scratch(t)
	cfg, err := l.hardware(ctx, dir, spec)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cfg.Ports = map[string]*os.File{wire.Port: theirs}
	// Not the test's context: the clean-up still wants to talk to the machine.
	hardware, err := qemu.Start(context.WithoutCancel(ctx), cfg)
	if err != nil {
		ours.Close()
		return nil, err
	}
	m := &Machine{
		Console: hardware.Console, hardware: hardware, port: ours, to: json.NewEncoder(ours),
		commands: map[uint64]*command{}, kept: filepath.Join(l.dir, "failed"),
	}
	if err := m.awaitHello(ctx, l.work); err != nil {
		return m, err
	}
	if spec.Network {
		return m, m.configureNetwork(ctx)
	}
	return m, nil
}

// hardware makes the disks and describes the machine.
func (l *Lab) hardware(ctx context.Context, dir string, spec Spec) (qemu.Config, error) {
	kernel, err := l.store.Kernel(ctx, spec.Kernel)
	if err != nil {
		return qemu.Config{}, err
	}
	cfg := qemu.Config{
		Accelerator: l.Accelerator, CPUs: orElse(spec.CPUs, 2), MemoryMiB: orElse(spec.MemoryMiB, 1024),
		Kernel: kernel.Image, Initrd: filepath.Join(dir, "initrd"),
		CommandLine: "console=ttyS0,115200 panic=-1 net.ifnames=0",
		Network:     spec.Network, ConsoleFile: filepath.Join(dir, "console.log"),
	}
	root := qemu.Disk{Serial: "root", File: filepath.Join(dir, "root.img")}
	cfg.Disks = append([]qemu.Disk{root}, spec.Disks...)
	if err := l.writeInitramfs(cfg.Initrd, kernel); err != nil {
		return cfg, fmt.Errorf("make the initramfs: %w", err)
	}
	modules := "/lib/modules/" + kernel.Release
	if _, err := os.Stat(spec.Root.Host(modules)); err != nil { // else this is the second machine of the tree
		if err := spec.Root.Add(modules, kernel.Modules); err != nil {
			return cfg, fmt.Errorf("add modules to the root file system: %w", err)
		}
	}
	return cfg, spec.Root.WriteDisk(ctx, root.File, orElse(spec.FreeMiB, 256))
}

func (l *Lab) writeInitramfs(file string, kernel *debian.Kernel) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	modules, err := kernel.ModuleClosure(bootModules...)
	if err != nil {
		return err
	}
	a := initramfs.NewArchive(f)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/newroot", "/modules"} {
		a.Mkdir(dir, 0o755)
	}
	a.Add("/init", l.init)
	for i, m := range modules {
		a.Add(fmt.Sprintf("/modules/%02d-%s", i, filepath.Base(m)), m)
	}
	return a.Close()
}

func orElse(n, fallback int) int {
	if n == 0 {
		return fallback
	}
	return n
}

// socketPair returns our end of a connection and the one QEMU inherits.
func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a connection to the machine: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "machine")
	f := os.NewFile(uintptr(fds[0]), "host")
	defer f.Close()
	if ours, err = net.FileConn(f); err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a connection to the machine: %w", err)
	}
	return ours, theirs, nil
}

// kernelPanic is what the console says when the kernel itself gives up.
var kernelPanic = regexp.MustCompile(`Kernel panic - not syncing: .*|guest: the machine is given up: .*`)

// awaitHello waits until the machine talks, and then listens.
func (m *Machine) awaitHello(ctx context.Context, work time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	decoder := json.NewDecoder(m.port)
	var hello wire.Hello
	said := make(chan error, 1)
	go func() { said <- decoder.Decode(&hello) }()
	select {
	case err := <-said:
		if err != nil {
			return m.lost(err)
		}
	case <-m.hardware.Done():
		return m.lost(errors.New("the machine has switched itself off"))
	case <-ctx.Done():
		return m.lost(fmt.Errorf("no word within %s", bootLimit))
	}
	m.Release = hello.Release
	m.slowness = max(1, float64(hello.Work)/float64(work))
	go m.listen(decoder)
	return nil
}

// lost explains why the machine does not talk by what its console says.
func (m *Machine) lost(err error) error {
	if why := kernelPanic.FindString(m.Console.String()); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return errors.Join(err, m.hardware.Err())
}

func (m *Machine) configureNetwork(ctx context.Context) error {
	const script = "ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2"
	r, err := m.Run(ctx, Command{Args: []string{"sh", "-c", script}})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit status %d: %s", r.Code, r.Stderr)
	}
	if err != nil {
		return fmt.Errorf("configure the network card: %w", err)
	}
	return nil
}
