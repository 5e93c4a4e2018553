package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/bothy-os/bothy/os/boot"
)

// waitingKube is a `bothy kube` that has started and waits for its settings.
type waitingKube struct {
	pid  int
	feed *os.File
}

// spawnKube starts `bothy kube` in a session of its own, so that it outlives
// the agent once it has its settings. Before that it ends with the agent: its
// standard input closes.
func spawnKube(binary string) (*waitingKube, error) {
	out, err := os.OpenFile(filepath.Join(boot.StateDir, "logs", "kube.stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(binary, "kube")
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start bothy kube: %w", err), write.Close())
	}
	go func() { _ = cmd.Wait() }() // reaps it; its end is seen through a pidfd
	return &waitingKube{pid: cmd.Process.Pid, feed: write}, nil
}

// begin hands over the settings.
func (w *waitingKube) begin(config *KubeConfig) error {
	return errors.Join(json.NewEncoder(w.feed).Encode(config), w.feed.Close())
}

// standby holds the process that was started ahead of time: loading a binary
// of this size takes a tenth of a second, in which the agent finds the commit.
type standby struct {
	mu      sync.Mutex
	process *waitingKube
}

// newStandby starts a process ahead, unless one is at work already.
func newStandby(env *boot.Environment) *standby {
	s := &standby{}
	if conn, err := net.Dial("unix", kubeSocket); err == nil {
		conn.Close()
		return s
	}
	s.process, _ = spawnKube(kubeBinary(env)) // the child component tries again and reports
	return s
}

// take returns the waiting process once; then nil.
func (s *standby) take() *waitingKube {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.process
	s.process = nil
	return w
}

// discard ends the waiting process: another one is at work.
func (s *standby) discard() {
	if w := s.take(); w != nil {
		_ = w.feed.Close() // it reads the end of its input and ends
	}
}

func kubeBinary(env *boot.Environment) string { return filepath.Join(env.BinDir, "bothy") }
