package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/test/vm/guest/pace"
	"github.com/bothy-os/bothy/test/vm/guest/wire"
)

const leftBehind = 10 * time.Second

// talker answers the host.
type talker struct {
	mu sync.Mutex // also keeps replies whole
	// to is the way to the host.
	to *json.Encoder
	// running are the processes of commands by the number of their request.
	running map[uint64]*os.Process
}

// talk does what the host asks for until it is told to power off.
func talk() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	t := &talker{to: json.NewEncoder(port), running: map[uint64]*os.Process{}}
	if err := t.hello(); err != nil {
		return err
	}
	requests := json.NewDecoder(port)
	for {
		var r wire.Request
		if err := requests.Decode(&r); err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		switch {
		case r.PowerOff:
			powerOff()
		case r.Kill:
			t.kill(r.ID)
		case r.Run != nil:
			go t.run(r.ID, *r.Run)
		}
	}
}

func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if data, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(data)) == wire.Port {
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(n))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("the machine has no virtio port %s", wire.Port)
}

func (t *talker) hello() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	return t.to.Encode(wire.Hello{Release: unix.ByteSliceToString(u.Release[:]), Work: pace.Measure()})
}

// reply cannot fail in a way that anybody could be told of: without its port the
// machine is lost, and reading requests fails as well.
func (t *talker) reply(r wire.Reply) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.to.Encode(r)
}

func (t *talker) run(id uint64, c wire.Command) {
	exit := wire.Exit{Code: -1}
	if err := t.start(id, c); err != nil {
		exit.Error = err.Error()
		var status *exec.ExitError
		if errors.As(err, &status) && status.Exited() {
			exit = wire.Exit{Code: status.ExitCode()}
		}
	} else {
		exit.Code = 0
	}
	t.reply(wire.Reply{ID: id, Exit: &exit})
}

// start runs a command to its end.
func (t *talker) start(id uint64, c wire.Command) error {
	if len(c.Args) == 0 {
		return errors.New("a command without a program")
	}
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir = "/"
	if c.Dir != "" {
		cmd.Dir = c.Dir
	}
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.Stdout = output(func(p []byte) { t.reply(wire.Reply{ID: id, Stdout: p}) })
	cmd.Stderr = output(func(p []byte) { t.reply(wire.Reply{ID: id, Stderr: p}) })
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	// Somebody left behind who holds the output open must not keep the host waiting.
	cmd.WaitDelay = leftBehind
	t.mu.Lock()
	err := cmd.Start()
	if err == nil {
		t.running[id] = cmd.Process
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	defer t.forget(id)
	return cmd.Wait()
}

func (t *talker) forget(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, id)
}

func (t *talker) kill(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.running[id]; p != nil {
		_ = unix.Kill(-p.Pid, unix.SIGKILL) // ESRCH: it has just ended
	}
}

type output func([]byte)

func (o output) Write(p []byte) (int, error) {
	o(p)
	return len(p), nil
}
