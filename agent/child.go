package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/os/boot"
)

const (
	kubeComponent = "kube"
	kubeSocket    = boot.RunDir + "/kube.sock"
	// kubeBackoff is short: the site's API is away as long as it lasts.
	kubeBackoff = 5 * time.Second
	// kubeGrace covers etcd's last write and the kubelet's shutdown.
	kubeGrace = 15 * time.Second
	// kubeUnresponsive is how long a child may leave its socket unanswered
	// before it is replaced.
	kubeUnresponsive = 60 * time.Second
)

// child runs `bothy kube`: it adopts a running one that fits, ends one that
// does not, and starts one where there is none.
type child struct {
	log     *slog.Logger
	binary  string
	config  *KubeConfig
	waiting *standby

	mu      sync.Mutex
	status  *KubeStatus
	changed chan struct{}
}

func newChild(log *slog.Logger, env *boot.Environment, waiting *standby, config *KubeConfig) *child {
	return &child{log: log, binary: kubeBinary(env), waiting: waiting, config: config, changed: make(chan struct{})}
}

// component is the life of one child process. When the agent ends the child
// goes on: it is started in a session of its own and adopted by the next agent.
func (c *child) component() supervise.Component {
	return supervise.Component{Name: kubeComponent, Run: c.run, MaxBackoff: kubeBackoff}
}

func (c *child) run(ctx context.Context, ready func()) error {
	pid, err := c.adopt(ctx)
	if err != nil {
		return err
	}
	if pid == 0 {
		if pid, err = c.start(); err != nil {
			return err
		}
	}
	c.waiting.discard()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("bothy kube (process %d) ended at once; see `bothy logs kube`: %w", pid, err)
	}
	defer unix.Close(pidfd)

	watch, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stopWatching()
	watching.Go(func() { c.watch(watch, pidfd, ready) })

	err = waitExit(ctx, pidfd)
	c.setStatus(nil)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// adopt returns the process id of a running child with the same settings, or 0
// after ending one with others.
func (c *child) adopt(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	body, err := call(ctx, kubeSocket, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return 0, c.endSilent()
	}
	defer body.Close()
	var st KubeStatus
	if err := json.NewDecoder(body).Decode(&st); err != nil {
		return 0, fmt.Errorf("ask the running bothy kube for its status: %w", err)
	}
	if st.Hash == c.config.Hash() {
		c.log.Info("adopted the running bothy kube", "pid", st.PID)
		return st.PID, nil
	}
	c.log.Info("settings changed, restarting bothy kube", "pid", st.PID)
	return 0, terminate(st.PID)
}

// endSilent ends a child that runs but does not answer, so that there are
// never two.
func (c *child) endSilent() error {
	pid := runningKube()
	if pid == 0 {
		return nil
	}
	c.log.Warn("bothy kube does not answer, replacing it", "pid", pid)
	return terminate(pid)
}

// endKube ends the child of whatever agent started it, if there is one.
func endKube(log *slog.Logger) error {
	pid := runningKube()
	if pid == 0 {
		return nil
	}
	log.Info("ending bothy kube", "pid", pid)
	return terminate(pid)
}

// runningKube is the process id of a child, 0 if there is none.
func runningKube() int {
	data, err := os.ReadFile(boot.KubePIDFile)
	if err != nil {
		return 0 // no file, no child
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil || !isKube(pid) {
		return 0 // a stale file
	}
	return pid
}

// isKube tells our child from a process that was given the same number later.
func isKube(pid int) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := slices.Collect(splitNul(cmdline))
	return len(args) > 1 && args[1] == "kube"
}

func splitNul(data []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start := 0
		for i, b := range data {
			if b == 0 {
				if !yield(string(data[start:i])) {
					return
				}
				start = i + 1
			}
		}
	}
}

// start gives the child its settings: the one that is waiting for them since
// the agent started, or else a new one.
func (c *child) start() (int, error) {
	w := c.waiting.take()
	if w == nil {
		var err error
		if w, err = spawnKube(c.binary); err != nil {
			return 0, err
		}
	}
	_ = os.Remove(kubeErrorFile) // of an earlier one
	c.log.Info("started bothy kube", "pid", w.pid)
	// Known before it begins to work: an agent that is killed right here must
	// not leave a child that the next agent does not find.
	if err := os.WriteFile(boot.KubePIDFile, []byte(fmt.Sprintln(w.pid)), 0o600); err != nil {
		return 0, err
	}
	if err := w.begin(c.config); err != nil {
		return 0, fmt.Errorf("hand the settings to bothy kube: %w", err)
	}
	return w.pid, nil
}

// watch keeps the child's status up to date. A child that hangs is killed.
func (c *child) watch(ctx context.Context, pidfd int, ready func()) {
	lastAnswer := time.Now()
	for ctx.Err() == nil {
		err := follow(ctx, kubeSocket, "/v1/status", func(st KubeStatus) bool {
			lastAnswer = time.Now()
			c.setStatus(&st)
			if st.ready(c.config.filesComponent()) {
				ready()
			}
			return true
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		if time.Since(lastAnswer) > kubeUnresponsive {
			c.log.Error("bothy kube does not answer, killing it", "silentFor", time.Since(lastAnswer))
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // its end is handled by run
			return
		}
		wait(ctx, 20*time.Millisecond)
	}
}

func (c *child) setStatus(st *KubeStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = st
	close(c.changed)
	c.changed = make(chan struct{})
}

// Status returns what the child last said about itself; nil if it is not
// running.
func (c *child) Status() (*KubeStatus, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.changed
}

// waitExit returns when the process of a pidfd has ended.
func waitExit(ctx context.Context, pidfd int) error {
	for ctx.Err() == nil {
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for bothy kube: %w", err)
		}
		if n > 0 {
			return endReason()
		}
	}
	return nil
}

// endReason is why the child ended, as far as it could say so itself.
func endReason() error {
	reason, err := os.ReadFile(kubeErrorFile)
	if err != nil || len(reason) == 0 {
		return errors.New("bothy kube ended without a word; see `bothy logs kube`")
	}
	return fmt.Errorf("bothy kube ended: %s", reason)
}

func terminate(pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // gone already
	}
	if err != nil {
		return fmt.Errorf("open process %d of bothy kube: %w", pid, err)
	}
	defer unix.Close(pidfd)
	_ = unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0)
	ctx, cancel := context.WithTimeout(context.Background(), kubeGrace)
	defer cancel()
	if waitExit(ctx, pidfd) != nil {
		return nil
	}
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	ctx, cancel = context.WithTimeout(context.Background(), kubeGrace)
	defer cancel()
	if waitExit(ctx, pidfd) == nil {
		return fmt.Errorf("bothy kube (process %d) does not end, not even when killed", pid)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
