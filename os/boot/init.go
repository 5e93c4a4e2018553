package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	agentBackoffMin = 200 * time.Millisecond
	agentBackoffMax = 5 * time.Second
	agentSettled    = 10 * time.Second

	agentGrace     = 5 * time.Second
	kubeGrace      = 15 * time.Second
	containerGrace = 5 * time.Second
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
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGCHLD)

	var agent, failures int
	var started time.Time
	restart := time.NewTimer(0)
	for {
		select {
		case <-restart.C:
			pid, err := startAgent(env)
			if err != nil {
				log.Error("cannot start the agent, will try again", "err", err)
				failures++
				restart.Reset(agentDelay(failures))
				continue
			}
			agent, started = pid, time.Now()
			log.Info("agent started", "pid", pid)
		case sig := <-signals:
			if sig != unix.SIGCHLD {
				log.Info("node is ending", "signal", sig)
				end(log, agent)
				return nil
			}
			for _, dead := range reap() {
				if dead.pid != agent {
					continue
				}
				agent = 0
				if time.Since(started) > agentSettled {
					failures = 0
				}
				failures++
				log.Warn("agent ended, will start it again", "status", dead.describe(), "after", agentDelay(failures))
				restart.Reset(agentDelay(failures))
			}
		}
	}
}

func agentDelay(failures int) time.Duration {
	d := agentBackoffMin
	for i := 1; i < failures && d < agentBackoffMax; i++ {
		d *= 2
	}
	return min(d, agentBackoffMax)
}

// startAgent starts the agent in a session of its own. What it prints before
// its log is open, and a Go crash report, go to a file of their own.
func startAgent(env *Environment) (int, error) {
	if err := os.MkdirAll(filepath.Join(StateDir, "logs"), 0o700); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(filepath.Join(StateDir, "logs", "agent.stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(env.BinDir, "bothy"), "agent")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + env.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release() // reaped with all other children
}

type death struct {
	pid    int
	status unix.WaitStatus
}

func (d death) describe() string {
	if d.status.Signaled() {
		return "killed by " + d.status.Signal().String()
	}
	return "exit status " + strconv.Itoa(d.status.ExitStatus())
}

func reap() []death {
	var dead []death
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if pid <= 0 || err != nil {
			return dead
		}
		dead = append(dead, death{pid, status})
	}
}

// end asks the agent, then Kubernetes, then every process left (the
// containers among them) to stop. When process 1 returns the kernel kills
// whatever did not.
func end(log *slog.Logger, agent int) {
	if agent > 0 {
		terminate(log, "agent", agent, agentGrace)
	}
	if data, err := os.ReadFile(KubePIDFile); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
			terminate(log, "kube", pid, kubeGrace)
		}
	}
	_ = unix.Kill(-1, unix.SIGTERM) // ESRCH: nobody is left
	waitFor(containerGrace, func() bool { return !anybodyLeft() })
	unix.Sync()
}

// anybodyLeft reports whether processes run that may still have something to
// finish. A containerd shim has not: it waits for a containerd that is gone.
func anybodyLeft() bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		comm, err := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
		if err == nil && !strings.HasPrefix(string(comm), "containerd-shim") {
			return true
		}
	}
	return false
}

func terminate(log *slog.Logger, name string, pid int, grace time.Duration) {
	if unix.Kill(pid, unix.SIGTERM) != nil {
		return
	}
	if !waitFor(grace, func() bool { return unix.Kill(pid, 0) != nil }) {
		log.Warn("did not stop in time, killing it", "process", name, "pid", pid, "grace", grace)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// waitFor polls because there is nothing to wait on: the processes are not
// all children of this one, and it has to go on reaping those that are.
func waitFor(limit time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		reap()
		if done() {
			return true
		}
	}
	return false
}
