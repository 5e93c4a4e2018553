package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace in which a test has sockets and processes of its
// own: with thousands of connections at hand, and who answered them.
type Namespace struct {
	handle netns.NsHandle
	do     chan func()
}

// OpenNamespace enters the namespace behind a path such as /proc/1/ns/net. It exists
// as long as the Namespace is open.
func OpenNamespace(path string) (*Namespace, error) {
	return enter(func() (netns.NsHandle, error) {
		handle, err := netns.GetFromPath(path)
		if err != nil {
			return handle, err
		}
		return handle, netns.Set(handle)
	})
}

// HostNamespace is that of this machine.
func HostNamespace() (*Namespace, error) { return OpenNamespace("/proc/thread-self/ns/net") }

// NewNamespace makes an empty one.
func NewNamespace() (*Namespace, error) { return enter(netns.New) }

// enter starts the thread that lives in the namespace: what has to happen there, it
// does. Children that it starts die with it if they ask for that.
func enter(change func() (netns.NsHandle, error)) (*Namespace, error) {
	n := &Namespace{do: make(chan func())}
	entered := make(chan error)
	onLostThread(func() {
		var err error
		n.handle, err = change()
		entered <- err
		if err != nil {
			return
		}
		for f := range n.do {
			f()
		}
	})
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("enter a network namespace: %w", err)
	}
	return n, nil
}

// onLostThread runs f in a goroutine, on a thread that ends with it. That cannot be the
// process's first one, which does not end and would show the namespace as the process's own.
func onLostThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		ended := make(chan struct{})
		onLostThread(func() { // elsewhere: this thread is taken until the end
			defer close(ended)
			f()
		})
		<-ended
		runtime.UnlockOSThread()
	}()
}

// Handle is for netlink.
func (n *Namespace) Handle() netns.NsHandle { return n.handle }

// Do runs f on the thread in the namespace, one call at a time.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error)
	n.do <- func() { done <- f() }
	return <-done
}

// Dial connects from the namespace. Dials do not wait for each other.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	onLostThread(func() {
		if err := netns.Set(n.handle); err != nil {
			done <- result{nil, err}
			return
		}
		// One address, one attempt: the socket is made by this thread.
		conn, err := (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
		done <- result{conn, err}
	})
	r := <-done
	return r.conn, r.err
}

// Listen serves in the namespace.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket serves datagrams in the namespace.
func (n *Namespace) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Start starts a process in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Close leaves the namespace.
func (n *Namespace) Close() error {
	close(n.do)
	return n.handle.Close()
}

// Namespace enters the network of the node itself.
func (n *Node) Namespace() (*Namespace, error) {
	pid, err := n.initPID()
	if err != nil {
		return nil, err
	}
	return OpenNamespace(fmt.Sprintf("/proc/%d/ns/net", pid))
}

// Cgroup2 is the directory of the cgroup2 hierarchy in which the node's own
// processes are.
func (n *Node) Cgroup2() (string, error) {
	agent, err := n.Process("agent")
	if err != nil {
		return "", err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", agent.PID))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(groups)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			if _, err := os.Stat(root + path + "/cgroup.type"); err == nil {
				return root + path, nil
			}
		}
	}
	return "", errors.New("the node's processes are in no cgroup2 directory")
}

// PodNamespace enters the network of a running pod.
func (n *Node) PodNamespace(uid string) (*Namespace, error) {
	// Cgroup names have it with or without dashes, after the driver's taste.
	names := []string{"pod" + uid, "pod" + strings.ReplaceAll(uid, "-", "_")}
	for _, p := range allProcesses() {
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
		if err != nil {
			continue // it has ended
		}
		for _, name := range names {
			if strings.Contains(string(groups), name) {
				return OpenNamespace(fmt.Sprintf("/proc/%d/ns/net", p.PID))
			}
		}
	}
	return nil, fmt.Errorf("no process of pod %s runs", uid)
}

// OpenPod waits until a pod runs, and enters its network. It returns the pod's address.
func (k *Kubectl) OpenPod(ctx context.Context, n *Node, name string, within time.Duration) (*Namespace, string, error) {
	var pod Pod
	err := Poll(ctx, within, "pod "+name+" to run", func() error {
		pod = Pod{}
		if err := k.JSON(ctx, &pod, "pod", name); err != nil {
			return err
		}
		if pod.Status.Phase != "Running" || pod.Status.PodIP == "" {
			return fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	ns, err := n.PodNamespace(pod.Metadata.UID)
	return ns, pod.Status.PodIP, err
}
