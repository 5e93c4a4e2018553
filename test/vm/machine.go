package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/vm/guest/wire"
	"github.com/bothy-os/bothy/test/vm/qemu"
)

// Machine is a virtual machine that takes commands.
type Machine struct {
	// Release of the kernel.
	Release string
	// Console is what the kernel has printed.
	Console *qemu.Console

	hardware *qemu.Machine
	port     net.Conn
	slowness float64
	// kept is the directory for the consoles of failed tests.
	kept string

	mu       sync.Mutex
	to       *json.Encoder
	last     uint64
	commands map[uint64]*command
	// gone says why no reply can come any more.
	gone error
}

// command is one that runs in the machine.
type command struct {
	stdout, stderr io.Writer
	exit           chan wire.Exit
}

// Command is a program to run in a machine.
type Command struct {
	// Args begin with the program.
	Args []string
	// Dir is the working directory, / if empty. Env is added to the machine's.
	Dir string
	Env []string
	// Stdin is all that the program can read.
	Stdin []byte
	// Stdout and Stderr, unless nil, get the output as it comes.
	Stdout, Stderr io.Writer
}

// Result is how a command ended.
type Result struct {
	// Code is the exit status.
	Code           int
	Stdout, Stderr string
}

// Run runs a command to its end. When the context ends first, the command and all
// it started are killed. The error is about the machine; a command that fails has
// a Code.
func (m *Machine) Run(ctx context.Context, c Command) (Result, error) {
	var stdout, stderr bytes.Buffer
	running := &command{stdout: tee(&stdout, c.Stdout), stderr: tee(&stderr, c.Stderr), exit: make(chan wire.Exit, 1)}
	id, err := m.send(running, wire.Command{Args: c.Args, Dir: c.Dir, Env: c.Env, Stdin: c.Stdin})
	if err != nil {
		return Result{}, err
	}
	exit, err := m.await(ctx, id, running)
	r := Result{Code: exit.Code, Stdout: stdout.String(), Stderr: stderr.String()}
	if err != nil {
		return r, fmt.Errorf("run %s in the machine: %w", strings.Join(c.Args, " "), err)
	}
	if exit.Error != "" {
		return r, fmt.Errorf("run %s in the machine: %s", strings.Join(c.Args, " "), exit.Error)
	}
	return r, nil
}

func tee(buffer *bytes.Buffer, w io.Writer) io.Writer {
	if w == nil {
		return buffer
	}
	return io.MultiWriter(buffer, w)
}

func (m *Machine) send(c *command, what wire.Command) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone != nil {
		return 0, m.gone
	}
	m.last++
	m.commands[m.last] = c
	return m.last, m.tell(wire.Request{ID: m.last, Run: &what})
}

// tellLimit is when a machine that takes no request is given up.
const tellLimit = time.Minute

// tell sends a request; the caller holds the lock.
func (m *Machine) tell(r wire.Request) error {
	err := m.port.SetWriteDeadline(time.Now().Add(tellLimit))
	if err == nil {
		err = m.to.Encode(r)
	}
	if err != nil {
		return fmt.Errorf("talk to the machine: %w", err)
	}
	return nil
}

// killGrace is how long a killed command may take to be gone.
const killGrace = time.Minute

func (m *Machine) await(ctx context.Context, id uint64, c *command) (wire.Exit, error) {
	select {
	case exit, ok := <-c.exit:
		return m.result(exit, ok)
	case <-ctx.Done():
	}
	m.mu.Lock()
	err := m.tell(wire.Request{ID: id, Kill: true})
	m.mu.Unlock()
	if err != nil {
		return wire.Exit{Code: -1}, errors.Join(context.Cause(ctx), err)
	}
	select {
	case exit, ok := <-c.exit:
		exit, err := m.result(exit, ok)
		return exit, errors.Join(context.Cause(ctx), err)
	case <-time.After(killGrace):
		m.mu.Lock()
		delete(m.commands, id) // whatever it still prints, nobody listens
		m.mu.Unlock()
		return wire.Exit{Code: -1}, fmt.Errorf("%w, and it does not die when killed", context.Cause(ctx))
	}
}

func (m *Machine) result(exit wire.Exit, ok bool) (wire.Exit, error) {
	if ok {
		return exit, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return wire.Exit{Code: -1}, m.gone
}

// listen hands replies to the commands they belong to, until the machine is off.
func (m *Machine) listen(from *json.Decoder) {
	for {
		var r wire.Reply
		if err := from.Decode(&r); err != nil {
			m.silence(err)
			return
		}
		m.mu.Lock()
		c := m.commands[r.ID]
		if r.Exit != nil {
			delete(m.commands, r.ID)
		}
		m.mu.Unlock()
		if c == nil {
			continue
		}
		// Buffers do not fail, and a caller's writer is the caller's business.
		_, _ = c.stdout.Write(r.Stdout)
		_, _ = c.stderr.Write(r.Stderr)
		if r.Exit != nil {
			c.exit <- *r.Exit
		}
	}
}

// silence ends all commands: the machine will not say how they went.
func (m *Machine) silence(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = fmt.Errorf("the machine does not talk any more: %w", m.lost(err))
	for _, c := range m.commands {
		close(c.exit)
	}
	m.commands = nil
}

// Output runs a command and returns its standard output; a failure ends the
// test.
func (m *Machine) Output(t testing.TB, args ...string) string {
	t.Helper()
	r, err := m.Run(t.Context(), Command{Args: args})
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != 0 {
		t.Fatalf("%s: exit status %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// WriteFile makes a file in the machine; a failure ends the test.
func (m *Machine) WriteFile(t testing.TB, path string, data []byte) {
	t.Helper()
	r, err := m.Run(t.Context(), Command{Args: []string{"sh", "-c", `cat >"$0"`, path}, Stdin: data})
	if err == nil && r.Code != 0 {
		err = errors.New(r.Stderr)
	}
	if err != nil {
		t.Fatalf("write %s in the machine: %v", path, err)
	}
}

// Scale is how long something takes in the machine that takes d on the host.
func (m *Machine) Scale(d time.Duration) time.Duration { return time.Duration(float64(d) * m.slowness) }

// Slowness is how many times as long as the host the machine takes.
func (m *Machine) Slowness() float64 { return m.slowness }

// Kill cuts the machine's power.
func (m *Machine) Kill(t testing.TB) {
	t.Helper()
	if err := m.hardware.Kill(); err != nil {
		t.Fatal(err)
	}
}

// powerOffLimit is generous for writing what is in memory to the disks.
const powerOffLimit = time.Minute

// PowerOff shuts the machine down, with everything written; it is killed when
// it does not.
func (m *Machine) PowerOff(ctx context.Context) error {
	m.mu.Lock()
	err := m.tell(wire.Request{PowerOff: true})
	m.mu.Unlock()
	if err != nil {
		return errors.Join(err, m.hardware.Kill())
	}
	select {
	case <-m.hardware.Done():
		return m.hardware.Err()
	case <-ctx.Done():
	case <-time.After(powerOffLimit):
	}
	return errors.Join(errors.New("the machine does not power off"), m.hardware.Kill())
}

// end switches the machine off with its test.
func (m *Machine) end(t testing.TB) {
	select {
	case <-m.hardware.Done():
	default:
		if t.Failed() {
			t.Logf("end of the console:\n%s", lastLines(m.Console.String(), 30))
		}
		if err := m.hardware.Kill(); err != nil {
			t.Error(err)
		}
	}
	m.port.Close()
	if t.Failed() {
		m.keepConsole(t)
	}
}

func (m *Machine) keepConsole(t testing.TB) {
	file := filepath.Join(m.kept, strings.ReplaceAll(t.Name(), "/", "-")+".console")
	err := os.MkdirAll(m.kept, 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(m.Console.String()), 0o644)
	}
	if err != nil {
		t.Logf("keep the console: %v", err)
		return
	}
	t.Logf("the machine's console is kept in %s", file)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
