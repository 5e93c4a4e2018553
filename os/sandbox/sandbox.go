package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/boot"
)

// Spec is what a caller decides about a node.
type Spec struct {
	// Name of the node; also part of the names of its link, cgroup and
	// firewall table on the host.
	Name string
	// StateDir holds everything the node keeps. It is made if missing.
	StateDir string
	// BinDir holds bothy-init, bothy and their helpers.
	BinDir string
	// ImageLayouts are OCI layout directories, absolute.
	ImageLayouts []string
	// BootConfig, unless nil, becomes the node's boot configuration.
	BootConfig []byte
	// Isolated gives the node no way out: no address translation for it is set
	// up on the host.
	Isolated bool
	// Segment is the link that the node shares with others, and Index its place there; nil gives it
	// a link of its own.
	Segment *Segment
	Index   int
}

// Node is a running or stopped sandbox, as recorded in its state directory.
type Node struct {
	Name string `json:"name"`
	// PID and StartTime identify process 1 as the host sees it; StartTime, in
	// clock ticks since boot, tells a reused PID apart.
	PID       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"startTime,omitempty"`
	// Network is kept when the node stops, so that it gets its address again.
	Network Network `json:"network"`
	// CgroupRoot is the node's cgroup in every hierarchy.
	CgroupRoot string `json:"cgroupRoot"`
	Isolated   bool   `json:"isolated,omitempty"`

	stateDir string
}

const recordFile = "sandbox.json"

// ErrRunning says that a node already runs on the state directory.
var ErrRunning = errors.New("a node is already running on this state directory")

// Open reads the node of a state directory. The error is fs.ErrNotExist if
// there never was one.
func Open(stateDir string) (*Node, error) {
	n := &Node{stateDir: stateDir}
	if err := durable.ReadJSON(filepath.Join(stateDir, recordFile), n); err != nil {
		return nil, err
	}
	return n, nil
}

// Running reports whether process 1 of the node is alive.
func (n *Node) Running() bool {
	t, err := startTime(n.PID)
	return n.PID > 0 && err == nil && t == n.StartTime
}

// Path returns where a path of the node is found from outside.
func (n *Node) Path(inside string) string {
	return fmt.Sprintf("/proc/%d/root%s", n.PID, inside)
}

// Start makes the node and returns once process 1 runs. If anything fails,
// what was made is removed again.
func Start(ctx context.Context, spec Spec) (_ *Node, err error) {
	if err := preflight(&spec); err != nil {
		return nil, err
	}
	unlock, err := lock(spec.StateDir)
	if err != nil {
		return nil, err
	}
	defer unlock()

	n, err := Open(spec.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		n = &Node{stateDir: spec.StateDir}
	case err != nil:
		return nil, err
	case n.Running():
		return nil, fmt.Errorf("%w: %q, process %d; see `bothy status`, or stop it with `bothy down`", ErrRunning, n.Name, n.PID)
	case n.Name != spec.Name:
		return nil, fmt.Errorf("state directory %s belongs to node %q, not %q: give --name %s or another --state", spec.StateDir, n.Name, spec.Name, n.Name)
	default:
		if err := n.clean(); err != nil { // what a node that was killed has left
			return nil, err
		}
	}
	n.Name, n.CgroupRoot, n.Isolated = spec.Name, "/bothy-"+spec.Name, spec.Isolated
	if err := n.chooseNetwork(spec); err != nil {
		return nil, err
	}
	// What stands under the node's name now is somebody else's: it must not be
	// taken, and not be removed when the start fails.
	if err := n.vacant(); err != nil {
		return nil, err
	}
	if spec.BootConfig != nil {
		if err := durable.WriteFile(filepath.Join(spec.StateDir, filepath.Base(boot.BootConfigFile)), spec.BootConfig, 0o600); err != nil {
			return nil, err
		}
	}
	if err := n.save(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop(context.WithoutCancel(ctx)))
		}
	}()
	return n, n.start(ctx, spec)
}

// chooseNetwork gives the node its link and addresses.
func (n *Node) chooseNetwork(spec Spec) (err error) {
	if spec.Segment == nil {
		return n.Network.choose(spec.Name, spec.StateDir)
	}
	n.Network, err = spec.Segment.member(spec.Name, spec.Index)
	return err
}

// openNetwork gives the node its way out, as far as it is to have one. On a segment the machine's part of it is there.
func (n *Node) openNetwork(segment *Segment) error {
	if segment != nil {
		if !segment.Out6 || n.Network.NodeAddress6 == "" {
			return nil
		}
		return n.Network.routeOut6(n.PID)
	}
	if n.Isolated {
		return nil
	}
	if err := n.Network.openUplink(); err != nil {
		return err
	}
	out6, err := n.Network.openUplink6()
	if err != nil || !out6 {
		return err
	}
	return n.Network.routeOut6(n.PID)
}

func (n *Node) start(ctx context.Context, spec Spec) error {
	cgroups, err := makeCgroups(n.CgroupRoot)
	if err != nil {
		return err
	}
	env := boot.Environment{
		Name: n.Name, Address: n.Network.NodeAddress, Address6: n.Network.NodeAddress6, Uplink: nodeInterface,
		StateDir: spec.StateDir, BinDir: spec.BinDir, ImageLayouts: spec.ImageLayouts,
		CgroupRoot: n.CgroupRoot, Cgroup2Dir: cgroups.unified,
		ResolvConf: hostResolvConf(), BootID: newBootID(), StartedAt: time.Now().UnixNano(),
	}
	feed, err := n.spawn(spec.BinDir)
	if err != nil {
		return err
	}
	defer feed.Close()
	if err := cgroups.add(n.PID); err != nil {
		return err
	}
	if err := n.Network.attach(n.PID); err != nil {
		return err
	}
	if err := n.openNetwork(spec.Segment); err != nil {
		return err
	}
	if err := n.save(); err != nil {
		return err
	}
	// The environment tells process 1 that all is prepared.
	if err := json.NewEncoder(feed).Encode(env); err != nil {
		return fmt.Errorf("hand the environment to bothy-init: %w", err)
	}
	return n.waitBooted(ctx)
}

// vacant makes sure that the names the node uses on the host are free.
func (n *Node) vacant() error {
	taken := ""
	if _, err := netlink.LinkByName(n.Network.Link); err == nil {
		taken = "link " + n.Network.Link
	}
	hierarchies, err := mountedHierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if dir := filepath.Join(h.mountPoint, n.CgroupRoot); taken == "" && exists(dir) {
			taken = "cgroup " + dir
		}
	}
	if taken == "" {
		return nil
	}
	return fmt.Errorf("%s exists already: another node named %q runs from another state directory; give this one another name with --name", taken, n.Name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// spawn starts process 1, which waits on the returned pipe.
func (n *Node) spawn(binDir string) (*os.File, error) {
	logs := filepath.Join(n.stateDir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(logs, "init.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(filepath.Join(binDir, "bothy-init"))
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, out, out
	cmd.SysProcAttr = &unix.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("start bothy-init in namespaces of its own: %w", err)
	}
	n.PID = cmd.Process.Pid
	go func() { _ = cmd.Wait() }() // reaped here while this process lives, by its parent later
	if n.StartTime, err = startTime(n.PID); err != nil {
		write.Close()
		return nil, err
	}
	return write, nil
}

// waitBooted returns once process 1 has made the node's mounts.
func (n *Node) waitBooted(ctx context.Context) error {
	for {
		if _, err := os.Stat(n.Path(boot.EnvironmentFile)); err == nil {
			return nil
		}
		if !n.Running() {
			text, _ := os.ReadFile(filepath.Join(n.stateDir, "logs", "init.log"))
			return fmt.Errorf("bothy-init ended at once: %s", strings.TrimSpace(string(text)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for bothy-init: %w", context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// stopGrace is a little more than bothy-init gives the node's processes.
const stopGrace = 35 * time.Second

// Stop ends the node and removes everything it had outside its state
// directory. Stopping a stopped node cleans up again and is not an error.
func (n *Node) Stop(ctx context.Context) error {
	if n.Running() {
		if err := n.stopInit(ctx); err != nil {
			return err
		}
	}
	return n.clean()
}

func (n *Node) stopInit(ctx context.Context) error {
	fd, err := unix.PidfdOpen(n.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", n.PID, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop bothy-init: %w", err)
	}
	deadline := time.Now().Add(stopGrace)
	killed := false
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if got, err := unix.Poll(poll, 100); err == nil && got > 0 {
			return nil
		}
		if !killed && (time.Now().After(deadline) || ctx.Err() != nil) {
			// The kernel then kills all processes of the namespace.
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			killed = true
			deadline = time.Now().Add(stopGrace)
		} else if killed && time.Now().After(deadline) {
			return fmt.Errorf("process %d does not die, not even when killed: it may hang in the kernel on a device or mount", n.PID)
		}
	}
}

// clean removes what is left on the host and records the node as stopped.
func (n *Node) clean() error {
	errs := []error{n.Network.detach(), removeCgroups(n.CgroupRoot)}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after node %q: %w", n.Name, err)
	}
	n.PID, n.StartTime = 0, 0
	if _, err := os.Stat(n.stateDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return n.save()
}

// Purge deletes the state directory of a stopped node: its keys, its etcd and
// its volumes.
func (n *Node) Purge() error {
	if n.Running() {
		return fmt.Errorf("node %q is running", n.Name)
	}
	return removeState(n.stateDir)
}

func (n *Node) save() error {
	return durable.WriteJSON(filepath.Join(n.stateDir, recordFile), n, 0o600)
}

// lock keeps two commands from working on one state directory.
func lock(stateDir string) (unlock func(), err error) {
	if err := durable.MkdirAll(stateDir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(stateDir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: another bothy command is working on %s right now", ErrRunning, stateDir)
	}
	return func() { f.Close() }, nil
}

func newBootID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// startTime is field 22 of /proc/PID/stat.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const afterName = 2
	if len(fields) < 22-afterName {
		return 0, fmt.Errorf("unexpected content of /proc/%d/stat", pid)
	}
	if fields[0] == "Z" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(fields[22-afterName-1], 10, 64)
}
