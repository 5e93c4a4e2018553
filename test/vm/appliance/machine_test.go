package appliance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/vm/qemu"
)

const (
	firmwareDir = "/usr/share/OVMF/"
	// The forwarded ports are those of the namespace.
	apiPort, workloadPort = 6443, 30080
	diskGiB               = 8
)

// bench is what machines are made with.
type bench struct {
	paths       cluster.Paths
	accelerator qemu.Accelerator
	image       string
	dir         string
	// args are further arguments of QEMU.
	args []string
	// restarts lets machines start themselves again.
	restarts bool
}

// newBench looks at the host. The test is skipped where a machine cannot run; with
// BOTHY_VM=require that is a failure instead.
func newBench(t *testing.T) *bench {
	t.Helper()
	paths, err := cluster.FindPaths()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{paths: paths, image: filepath.Join(paths.Root, "build/os/bothy-vm")}
	if other := os.Getenv("BOTHY_IMAGE"); other != "" {
		b.image = other
	}
	if why := b.missing(); why != "" {
		if os.Getenv("BOTHY_VM") == "require" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	b.accelerator, err = qemu.ChooseAccelerator(t.Context())
	if err != nil {
		t.Logf("machines are emulated, and slow: %v", err)
	}
	parent := filepath.Join(paths.Root, "build/vm/run")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	if b.dir, err = os.MkdirTemp(parent, "appliance-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(b.dir); err != nil {
			t.Errorf("remove %s: %v", b.dir, err)
		}
	})
	return b
}

// long leaves out a test that takes more than its share of an hour, unless BOTHY_VM_ALL is set.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("BOTHY_VM_ALL") == "" {
		t.Skip("it takes long: set BOTHY_VM_ALL=1, as `make test-vm-all` does")
	}
}

func (b *bench) missing() string {
	if why := b.paths.Missing(); why != "" {
		return why
	}
	for _, file := range []string{b.image + ".raw", b.image + ".efi", firmwareDir + "OVMF_CODE_4M.fd"} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Sprintf("%s is missing: run `make test-vm-appliance`, which makes it", file)
		}
	}
	for _, tool := range []string{qemu.Binary, "mcopy", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Sprintf("%s is not installed: run `hack/deps.sh vm appliance`", tool)
		}
	}
	return ""
}

// disk is a copy of the image, on a disk that is larger.
func (b *bench) disk(t *testing.T) string {
	t.Helper()
	to := filepath.Join(b.dir, "disk.raw")
	b.run(t, "cp", "--sparse=always", b.image+".raw", to)
	if err := os.Truncate(to, diskGiB<<30); err != nil {
		t.Fatal(err)
	}
	return to
}

func (b *bench) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// firmware names the variants that the ovmf package has.
type firmware struct {
	code, vars string
	// protected keeps its variables from whoever is not the firmware. A firmware that is not made
	// for that cannot write them either, and forgets them.
	protected bool
}

var (
	ordinary = firmware{"OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", false}
	// secure has Secure Boot switched on, with a key whose secret half everybody knows.
	secure = firmware{"OVMF_CODE_4M.snakeoil.fd", "OVMF_VARS_4M.snakeoil.fd", true}
)

// machine is a running appliance.
type machine struct {
	*qemu.Machine
	started time.Time
	// unit is how long it took until the first picture was on the console.
	unit time.Duration
	log  string
	// on switches it on; again is how often that was because of the emulator.
	on    func(t *testing.T)
	again int
}

// boot switches a machine on. It is switched off with the test.
func (b *bench) boot(t *testing.T, fw firmware, disks ...qemu.Disk) *machine {
	t.Helper()
	vars := filepath.Join(b.dir, "vars.fd")
	if err := os.Remove(vars); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	b.run(t, "cp", firmwareDir+fw.vars, vars)
	return b.powerOn(t, fw, disks...)
}

// powerOn is boot for a machine whose firmware remembers what it knew.
func (b *bench) powerOn(t *testing.T, fw firmware, disks ...qemu.Disk) *machine {
	t.Helper()
	vars := filepath.Join(b.dir, "vars.fd")
	m := &machine{started: time.Now(), log: filepath.Join(b.dir, "console.log")}
	config := qemu.Config{
		Accelerator: b.accelerator, CPUs: 2, MemoryMiB: 3072, Disks: disks, ConsoleFile: m.log, Restarts: b.restarts,
		Args: append([]string{
			"-machine", "smm=" + onOff(fw.protected), "-global", "driver=cfi.pflash01,property=secure,value=" + onOff(fw.protected),
			"-drive", "if=pflash,format=raw,readonly=on,file=" + firmwareDir + fw.code,
			"-drive", "if=pflash,format=raw,file=" + vars,
			"-qmp", "unix:" + filepath.Join(b.dir, "qmp") + ",server=on,wait=off",
			"-device", "i6300esb", "-action", "watchdog=reset",
			"-netdev", fmt.Sprintf("user,id=net,hostfwd=tcp:127.0.0.1:%[1]d-:%[1]d,hostfwd=tcp:127.0.0.1:%[2]d-:%[2]d", apiPort, workloadPort),
			"-device", "virtio-net-pci,netdev=net",
		}, b.args...),
	}
	m.on = func(t *testing.T) {
		t.Helper()
		hardware, err := qemu.Start(context.WithoutCancel(t.Context()), config)
		if err != nil {
			t.Fatal(err)
		}
		m.Machine = hardware
	}
	m.on(t)
	t.Cleanup(func() {
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of the console:\n%s", tail(m.Console.String(), 6000))
			b.keepConsole(t, m)
		}
	})
	return m
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// keepConsole leaves what the machine has printed where those of other machines are.
func (b *bench) keepConsole(t *testing.T, m *machine) {
	dir := filepath.Join(b.paths.Root, "build/vm/failed")
	file := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".console")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(file, []byte(m.Console.String()), 0o644)); err != nil {
		t.Logf("the console was not kept: %v", err)
		return
	}
	t.Logf("the console is in %s", file)
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// pressPowerButton presses the button once, for a moment.
func (b *bench) pressPowerButton(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(b.dir, "qmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// QEMU greets, and answers each command on a line; events may come between.
	in := bufio.NewScanner(conn)
	for _, command := range []string{"qmp_capabilities", "system_powerdown"} {
		if _, err := fmt.Fprintf(conn, "{\"execute\": %q}\n", command); err != nil {
			t.Fatal(err)
		}
		for in.Scan() && !strings.Contains(in.Text(), `"return"`) {
			if strings.Contains(in.Text(), `"error"`) {
				t.Fatalf("%s: %s", command, in.Text())
			}
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
}

// firstPicture is what process 1's companion shows as soon as it runs.
var firstPicture = regexp.MustCompile(`state +\S`)

// bootLimit is how long firmware, kernel and the first stage may take anywhere.
const bootLimit = 10 * time.Minute

// awaitPicture waits for the system to show anything, and so learns how fast it is.
func (m *machine) awaitPicture(t *testing.T) {
	t.Helper()
	m.await(t, bootLimit, firstPicture)
	m.unit = time.Since(m.started)
	t.Logf("the first picture is on the console after %.1f s", m.unit.Seconds())
}

// maxAgain is how often a machine is switched on again because the emulator broke its kernel.
const maxAgain = 2

// await waits for the console to show something, and returns it.
func (m *machine) await(t *testing.T, within time.Duration, pattern *regexp.Regexp) string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), within, fmt.Errorf("not within %s", within))
	defer cancel()
	got, err := m.Console.Wait(ctx, pattern)
	if err != nil && m.Machine.Broke() && m.again < maxAgain {
		m.again++
		t.Logf("the emulator broke the kernel, the machine is switched on again: %v", err)
		m.on(t)
		return m.await(t, within, pattern)
	}
	if err != nil {
		t.Fatalf("%v; QEMU: %v", err, m.Err())
	}
	return got
}

// patience is how long a machine may take for what takes a node on this host seconds.
func (m *machine) patience() time.Duration { return 2*time.Minute + 30*m.unit }
