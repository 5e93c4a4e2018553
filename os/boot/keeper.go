package boot

import (
	"errors"
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
	backoffMin = 200 * time.Millisecond
	backoffMax = 5 * time.Second
	settled    = 10 * time.Second

	agentGrace     = 5 * time.Second
	kubeGrace      = 15 * time.Second
	containerGrace = 5 * time.Second
)

// AgentService is the name of the service that is the agent.
const AgentService = "agent"

// Service is a process that is started again whenever it ends.
type Service struct {
	Name string
	// Command makes the process; its output may be a file, which is closed once the
	// process has it.
	Command func() (*exec.Cmd, error)
}

// Keeper keeps services running and reaps every process that has lost its parent.
type Keeper struct {
	log      *slog.Logger
	services []*service
	signals  chan os.Signal
	on       map[os.Signal]func()
	restart  *time.Timer
}

type service struct {
	Service
	// wanted is set when the service has been asked for; pid is 0 while it does not run.
	wanted   bool
	pid      int
	failures int
	started  time.Time
	// due is when it is to be started.
	due time.Time
}

// NewKeeper returns a keeper of services, none of which runs yet.
func NewKeeper(log *slog.Logger, services ...Service) *Keeper {
	k := &Keeper{log: log, signals: make(chan os.Signal, 16), on: map[os.Signal]func(){}, restart: time.NewTimer(0)}
	for _, s := range services {
		k.services = append(k.services, &service{Service: s})
	}
	signal.Notify(k.signals, unix.SIGCHLD)
	return k
}

// Start asks for a service, once [Keeper.Run] is at work. Asking again changes nothing.
func (k *Keeper) Start(name string) {
	if s := k.find(name); s != nil && !s.wanted {
		s.wanted, s.due = true, time.Now()
		k.restart.Reset(0)
	}
}

// Restart has a running service end, so that it is started again. It is for functions that
// [Keeper.On] has called.
func (k *Keeper) Restart(name string) {
	s := k.find(name)
	if s == nil || s.pid == 0 {
		return
	}
	s.started = time.Now().Add(-2 * settled) // it did not fail
	if err := unix.Kill(s.pid, unix.SIGTERM); err != nil {
		k.log.Warn("cannot end a service", "service", name, "err", err)
	}
}

// On has a function called by [Keeper.Run] when a signal arrives.
func (k *Keeper) On(sig os.Signal, do func()) {
	k.on[sig] = do
	signal.Notify(k.signals, sig)
}

// Run keeps the services running until one of the signals arrives, and returns that.
func (k *Keeper) Run(until ...os.Signal) os.Signal {
	signal.Notify(k.signals, until...)
	for {
		select {
		case <-k.restart.C:
			k.startDue()
		case sig := <-k.signals:
			do := k.on[sig]
			switch {
			case sig == unix.SIGCHLD:
				k.bury(reap())
			case do != nil:
				do()
			default:
				return sig
			}
		}
	}
}

func (k *Keeper) find(name string) *service {
	for _, s := range k.services {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// startDue starts what is due, and sets the timer for what is not yet.
func (k *Keeper) startDue() {
	var next time.Time
	for _, s := range k.services {
		if !s.wanted || s.pid > 0 {
			continue
		}
		if !s.due.After(time.Now()) {
			k.start(s)
		}
		if s.pid == 0 && (next.IsZero() || s.due.Before(next)) {
			next = s.due
		}
	}
	if !next.IsZero() {
		k.restart.Reset(time.Until(next))
	}
}

func (k *Keeper) start(s *service) {
	pid, err := spawn(s.Command)
	s.started = time.Now()
	if err != nil {
		s.failures++
		s.due = s.started.Add(delay(s.failures))
		k.log.Error("cannot start, will try again", "service", s.Name, "err", err)
		return
	}
	s.pid = pid
	k.log.Info("started", "service", s.Name, "pid", pid)
}

func spawn(command func() (*exec.Cmd, error)) (int, error) {
	cmd, err := command()
	if err != nil {
		return 0, err
	}
	if out, ok := cmd.Stdout.(*os.File); ok {
		defer out.Close()
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release() // reaped with all other children
}

// bury has services that have died started again, after a while.
func (k *Keeper) bury(dead []death) {
	for _, d := range dead {
		for _, s := range k.services {
			if s.pid != d.pid {
				continue
			}
			s.pid = 0
			if time.Since(s.started) > settled {
				s.failures = 0
			}
			s.failures++
			s.due = time.Now().Add(delay(s.failures))
			k.log.Warn("ended, will be started again", "service", s.Name, "status", d.describe(), "after", delay(s.failures))
		}
	}
	k.startDue()
}

func delay(failures int) time.Duration {
	d := backoffMin
	for i := 1; i < failures && d < backoffMax; i++ {
		d *= 2
	}
	return min(d, backoffMax)
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

// End asks the agent, then Kubernetes, then every process left (the containers among
// them) to stop. When process 1 returns the kernel kills whatever did not.
func (k *Keeper) End() {
	log := k.log
	if agent := k.find(AgentService); agent != nil && agent.pid > 0 {
		terminate(log, AgentService, agent.pid, agentGrace)
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
