package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Machine is a running or ended virtual machine.
type Machine struct {
	Console *Console

	process  *os.Process
	emulated bool
	// done is closed when the process has ended, with err.
	done chan struct{}
	err  error
}

// Start switches a machine on. It runs until it powers itself off, asks for a
// reboot, is killed, or the context ends.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	if _, err := exec.LookPath(Binary); err != nil {
		return nil, fmt.Errorf("%w: install it with `hack/deps.sh vm`", err)
	}
	console, err := newConsole(cfg.ConsoleFile)
	if err != nil {
		return nil, err
	}
	m := &Machine{Console: console, done: make(chan struct{}), emulated: cfg.Accelerator == TCG}
	args, files := cfg.args()
	cmd := exec.CommandContext(ctx, Binary, args...)
	complaints := &tail{limit: 4096}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = console, complaints, files
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	started := make(chan error)
	go m.run(cmd, complaints, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", Binary, err)
	}
	return m, nil
}

// run starts the process and waits for it on one thread: the kernel ends the
// machine when the thread that started it does.
func (m *Machine) run(cmd *exec.Cmd, complaints *tail, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		m.Console.close()
		started <- err
		return
	}
	m.process = cmd.Process
	close(started)
	if err := cmd.Wait(); err != nil {
		m.err = fmt.Errorf("%s: %w: %s", Binary, err, strings.TrimSpace(complaints.String()))
	}
	m.Console.close()
	close(m.done)
}

// Done is closed when the machine is off.
func (m *Machine) Done() <-chan struct{} { return m.done }

// broken is what a kernel says that ran into an instruction which another processor had
// already replaced: while a kernel changes its own code, a trap stands there for a moment, and
// knows who has to be told of it. Emulated processors that are not emulated in step may find
// it later than that.
var broken = regexp.MustCompile(`Oops: int3: 0000`)

// Broke reports whether the machine has ended because the emulator, and not what it ran, was
// at fault. Real processors do not do this.
func (m *Machine) Broke() bool {
	select {
	case <-m.done:
		return m.emulated && broken.MatchString(m.Console.String())
	default:
		return false
	}
}

// Err says why a machine that is off did not end by itself, nil if it did.
func (m *Machine) Err() error {
	select {
	case <-m.done:
		return m.err
	default:
		return nil
	}
}

// Kill cuts the power and returns when the machine is off.
func (m *Machine) Kill() error {
	if err := m.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", Binary, err)
	}
	<-m.done
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	limit int
	text  []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - t.limit; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
