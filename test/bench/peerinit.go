package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// peerInit is the argument by which this program knows that it is the first
// process in the namespaces of the separate processes.
const peerInit = "peer-init"

// runPeerInit prepares what bothy-init prepares in a node, then keeps the
// processes running as a service manager does.
func runPeerInit() error {
	var plan peerPlan
	if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
		return err
	}
	if err := joinPeerCgroups(); err != nil {
		return err
	}
	if err := mountPeers(plan.State); err != nil {
		return err
	}
	if err := linkPeers(); err != nil {
		return err
	}
	for _, args := range plan.Commands {
		go keepRunning(plan, args)
	}
	reapOrphans()
	return nil
}

func keepRunning(plan peerPlan, args []string) {
	name := filepath.Base(args[0])
	for {
		log, err := os.OpenFile(filepath.Join(plan.Logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err == nil {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = []string{"PATH=" + plan.Path}
			cmd.Stdout, cmd.Stderr = log, log
			err = cmd.Run()
			log.Close()
		}
		fmt.Fprintf(os.Stderr, "bench: %s ended, starting it again: %v\n", name, err)
		<-time.After(100 * time.Millisecond) // as systemd does
	}
}

// reapOrphans waits for the shims' children that nobody else waits for. Those
// of keepRunning are left to it.
func reapOrphans() {
	for range time.Tick(time.Second) {
		children, err := os.ReadFile("/proc/1/task/1/children")
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(children)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err != nil || !orphan(pid) {
				continue
			}
			var status unix.WaitStatus
			_, _ = unix.Wait4(pid, &status, unix.WNOHANG, nil)
		}
	}
}

func orphan(pid int) bool {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && (strings.HasPrefix(string(comm), "containerd-shim") || strings.HasPrefix(string(comm), "runc"))
}

func mountPeers(state string) error {
	// Whatever is mounted over its parents, the state stays where it is.
	stateFD, err := unix.OpenTree(unix.AT_FDCWD, state, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open %s: %w", state, err)
	}
	defer unix.Close(stateFD)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, dir := range []string{"/run/containerd", "/run/netns", "/run/volume-plugins", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	kubelet := filepath.Join(state, "kubelet")
	if err := os.MkdirAll(kubelet, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kubelet, "/var/lib/kubelet", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /var/lib/kubelet: %w", err)
	}
	for _, dir := range []string{"/run/netns", "/var/lib/kubelet"} {
		if dir == "/run/netns" {
			if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
				return err
			}
		}
		if err := unix.Mount("", dir, "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return fmt.Errorf("share %s: %w", dir, err)
		}
	}
	return nil
}

// linkPeers gives the namespace an address that is not loopback, on a pair of
// devices that leads nowhere.
func linkPeers() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "nowhere"}); err != nil {
		return fmt.Errorf("make eth0: %w", err)
	}
	for _, name := range []string{"lo", "eth0", "nowhere"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "eth0" {
			address := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(peerAddress).To4(), Mask: net.CIDRMask(29, 32)}}
			if err := netlink.AddrAdd(link, address); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	gateway := net.ParseIP(peerAddress).To4()
	gateway[3]--
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway}); err != nil {
		return fmt.Errorf("add the default route: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// hierarchies are the mounted cgroup file systems.
func hierarchies() (map[string]bool, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		before, after, _ := strings.Cut(scanner.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(kind) > 0 && fields[3] == "/" && strings.HasPrefix(kind[0], "cgroup") {
			out[fields[4]] = kind[0] == "cgroup2"
		}
	}
	return out, scanner.Err()
}

// makePeerCgroups makes the root that the kubelet is given, in every hierarchy,
// and a child for the processes.
func makePeerCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for mount, unified := range all {
		parent := mount
		for _, dir := range []string{filepath.Join(mount, peerCgroup), filepath.Join(mount, peerCgroup, "system")} {
			if unified {
				delegate(parent)
			}
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				if unified || !exists(filepath.Join(mount, file)) {
					continue
				}
				value, err := os.ReadFile(filepath.Join(parent, file))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
					return err
				}
			}
			parent = dir
		}
	}
	return nil
}

// delegate hands all controllers to the children of a cgroup2 directory, as far
// as the kernel lets it.
func delegate(dir string) {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, controller := range strings.Fields(string(available)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
}

func joinPeerCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for mount := range all {
		if err := os.WriteFile(filepath.Join(mount, peerCgroup, "system", "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

func removePeerCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for mount := range all {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(mount, peerCgroup), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := removeIdle(dirs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeIdle removes a cgroup; the kernel takes a moment to see that its
// processes have ended.
func removeIdle(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}
