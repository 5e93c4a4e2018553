package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/os/boot"
)

// startNode starts a sandbox whose agent is a shell script.
func startNode(t *testing.T, name, agent string) (*Node, Spec) {
	t.Helper()
	return startNodeIn(t, name, filepath.Join(t.TempDir(), "state"), agent)
}

func startNodeIn(t *testing.T, name, stateDir, agent string) (*Node, Spec) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	bin := t.TempDir()
	provideInit(t, filepath.Join(bin, "bothy-init"))
	for _, f := range []string{"bothy", "bothy-cni", "runc", "containerd-shim-runc-v2"} {
		if err := os.WriteFile(filepath.Join(bin, f), []byte("#!/bin/sh\n"+agent), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	spec := Spec{Name: name, StateDir: stateDir, BinDir: bin, Isolated: true}
	n, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if left := leftovers(t, n); len(left) > 0 {
			t.Errorf("the node left behind: %v", left)
		}
	})
	return n, spec
}

// provideInit builds bothy-init, or takes it from the directory that BOTHY_TEST_BIN
// names, for machines without a compiler.
func provideInit(t *testing.T, to string) {
	t.Helper()
	if dir := os.Getenv("BOTHY_TEST_BIN"); dir != "" {
		if err := os.Symlink(filepath.Join(dir, "bothy-init"), to); err != nil {
			t.Fatal(err)
		}
		return
	}
	build := exec.Command("go", "build", "-o", to, "github.com/bothy-os/bothy/cmd/bothy-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build bothy-init: %v\n%s", err, out)
	}
}

// leftovers lists what a stopped node still has on the host.
func leftovers(t *testing.T, n *Node) []string {
	t.Helper()
	var out []string
	if _, err := netlink.LinkByName(n.Network.Link); err == nil {
		out = append(out, "link "+n.Network.Link)
	}
	hierarchies, err := mountedHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hierarchies {
		if _, err := os.Stat(filepath.Join(h.mountPoint, n.CgroupRoot)); err == nil {
			out = append(out, "cgroup in "+h.mountPoint)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), n.stateDir) {
		out = append(out, "mounts")
	}
	return out
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestNodeHasItsOwnWorld(t *testing.T) {
	n, _ := startNode(t, "t-world", `
hostname > /var/lib/bothy/hostname
cut -d: -f3 /proc/self/cgroup | sort -u > /var/lib/bothy/cgroups
touch /run/bothy/here /var/lib/kubelet/here
echo $$ > /var/lib/bothy/ready
exec sleep 1000`)
	eventually(t, "the agent has run", func() bool { return fileExists(filepath.Join(n.stateDir, "ready")) })

	if got := read(t, filepath.Join(n.stateDir, "hostname")); got != "t-world" {
		t.Errorf("host name %q", got)
	}
	if got := read(t, filepath.Join(n.stateDir, "cgroups")); got != "/bothy-t-world/system" {
		t.Errorf("cgroups %q", got)
	}
	if !fileExists(filepath.Join(n.stateDir, "kubelet", "here")) {
		t.Error("/var/lib/kubelet of the node is not in its state directory")
	}
	for _, path := range []string{boot.RunDir, "/var/lib/kubelet/here", "/var/lib/cni"} {
		if fileExists(path) {
			t.Errorf("%s of the node shows on the host", path)
		}
	}
	if !fileExists(n.Path(boot.RunDir + "/here")) {
		t.Error("the node's /run cannot be reached from outside")
	}
	// The host reaches the node at its address: a closed port answers at once.
	_, err := net.DialTimeout("tcp", net.JoinHostPort(n.Network.NodeAddress, "1"), 5*time.Second)
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("connect to a closed port of the node: %v", err)
	}
}

func TestAgentIsStartedAgain(t *testing.T) {
	n, _ := startNode(t, "t-again", `
echo x >> /var/lib/bothy/starts
sleep 1000 & echo $! > /run/bothy/orphan
kill -9 $$`)
	eventually(t, "the agent was started three times", func() bool {
		return strings.Count(read(t, filepath.Join(n.stateDir, "starts")), "x") >= 3
	})
	if !n.Running() {
		t.Error("the node has ended")
	}
}

func TestSecondStartIsRefused(t *testing.T) {
	_, spec := startNode(t, "t-second", "exec sleep 1000")
	_, err := Start(t.Context(), spec)
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "bothy down") {
		t.Errorf("second start: %v", err)
	}
}

func TestRestartKeepsTheAddress(t *testing.T) {
	n, spec := startNode(t, "t-keep", "exec sleep 1000")
	address := n.Network.NodeAddress
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	*n = *again // the clean-up of the test stops this one
	if again.Network.NodeAddress != address {
		t.Errorf("address was %s, is %s", address, again.Network.NodeAddress)
	}
}

func TestKilledInitTakesEverythingAlong(t *testing.T) {
	n, spec := startNode(t, "t-killed", "trap '' TERM; while :; do sleep 1; done")
	p, err := os.FindProcess(n.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node is seen as dead", func() bool { return !n.Running() })
	again, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatalf("start after a kill: %v", err)
	}
	*n = *again
}

func TestPurgeKeepsForeignFiles(t *testing.T) {
	n, _ := startNode(t, "t-purge", "exec sleep 1000")
	foreign := filepath.Join(n.stateDir, "thesis.txt")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Purge(); err == nil {
		t.Error("a running node was purged")
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Purge(); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("purge with a foreign file: %v", err)
	}
	if !fileExists(foreign) || fileExists(filepath.Join(n.stateDir, recordFile)) {
		t.Error("purge removed the wrong files")
	}
}

func TestPreflightRefuses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: without it that is what is refused")
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name, want string
		spec       Spec
	}{
		{"name", "valid node name", Spec{Name: "Not_A_Name", StateDir: dir, BinDir: dir}},
		{"helpers", "make build", Spec{Name: "x", StateDir: dir, BinDir: dir}},
	} {
		if _, err := Start(t.Context(), c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("a refused start left %v", left)
	}
}

func TestReachableResolvers(t *testing.T) {
	text, n := reachableResolvers("search example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0\n")
	if n != 1 || text != "search example.org\nnameserver 192.0.2.1\noptions edns0\n" {
		t.Errorf("%d %q", n, text)
	}
}

func TestLinkNameFits(t *testing.T) {
	for _, name := range []string{"a", "default", "a-rather-long-name-of-a-node"} {
		if l := linkName(name); len(l) > 15 || !strings.HasPrefix(l, "bothy-") {
			t.Errorf("%s: %s", name, l)
		}
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestTakenRangeIsLeft(t *testing.T) {
	taken := candidates("/state", singleBits)[0]
	routes := []netip.Prefix{netip.PrefixFrom(taken.Addr(), 24)}
	if !overlapping(taken, routes).IsValid() || overlapping(netip.MustParsePrefix("198.51.100.0/29"), routes).IsValid() {
		t.Error("overlap is not judged right")
	}
	n, spec := startNode(t, "t-taken", "exec sleep 1000")
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	was := n.Network.NodeAddress
	// Somebody else now has the range: the node's own name for the link, which
	// is what tells it from ours, differs.
	other, _ := startNodeAt(t, "t-other", n.Network)
	again, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	*n = *again
	if n.Network.NodeAddress == was || n.Network.NodeAddress == other.Network.NodeAddress {
		t.Errorf("the node took the address %s of another", n.Network.NodeAddress)
	}
}

// startNodeAt starts a node on the address range of another, stopped one.
func startNodeAt(t *testing.T, name string, network Network) (*Node, Spec) {
	t.Helper()
	record := Node{Name: name, Network: network, stateDir: filepath.Join(t.TempDir(), "state")}
	record.Network.Link = linkName(name)
	if err := record.save(); err != nil {
		t.Fatal(err)
	}
	return startNodeIn(t, name, record.stateDir, "exec sleep 1000")
}
