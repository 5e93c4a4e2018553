package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Run is the whole life of process 1. It reads the Environment as JSON from
// stdin, which also is the signal that the caller has finished its part
// (network devices, cgroups), and returns when the node has been told to end.
func Run(stdin io.Reader) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getpid() != 1 {
		return errors.New("bothy-init is process 1 of a node and is started by `bothy up` or the kernel, not by hand")
	}
	env := &Environment{}
	if err := json.NewDecoder(stdin).Decode(env); err != nil {
		return fmt.Errorf("read the environment from standard input: %w", err)
	}
	if err := unix.Sethostname([]byte(env.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := mountNode(env); err != nil {
		return err
	}
	data, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(EnvironmentFile, data, 0o600); err != nil {
		return err
	}
	raiseFileLimit()
	return supervise(log, env)
}

// raiseFileLimit lets the agent, Kubernetes and containers open as many files
// as this process may allow.
func raiseFileLimit() {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return
	}
	lim.Cur = lim.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim) // the soft limit stays: nothing depends on it at start
}

// supervise keeps the agent running until the node is told to end.
func supervise(log *slog.Logger, env *Environment) error {
	k := NewKeeper(log, Service{Name: AgentService, Command: func() (*exec.Cmd, error) { return AgentCommand(env.BinDir) }})
	k.Start(AgentService)
	sig := k.Run(unix.SIGTERM, unix.SIGINT)
	log.Info("node is ending", "signal", sig)
	k.End()
	return nil
}

// AgentCommand is the agent, in a session of its own. What it prints before its log is
// open, and a Go crash report, go to a file of their own.
func AgentCommand(binDir string) (*exec.Cmd, error) {
	if err := os.MkdirAll(filepath.Join(StateDir, "logs"), 0o700); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(StateDir, "logs", "agent.stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(binDir, "bothy"), "agent")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	return cmd, nil
}
