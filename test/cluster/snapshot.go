package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Snapshot is what this machine has that no node may change: its mounts, its
// forwarding settings, its routing rules, and the directories that container software is known to
// fill. What belongs to a certain node is found by [Node.Remains] instead, so
// that other nodes may come and go on the same machine meanwhile.
type Snapshot map[string]bool

// TakeSnapshot looks at the machine.
func TakeSnapshot() (Snapshot, error) {
	s := Snapshot{}
	for _, look := range []func(Snapshot) error{addMounts, addDirectories, addForwarding, addRules} {
		if err := look(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// left lists what is in later but not in s.
func (s Snapshot) left(later Snapshot) []string {
	var out []string
	for name := range later {
		if !s[name] {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}

// NothingLeft asserts that the machine has nothing it did not have at the
// snapshot, and nothing of the nodes. The kernel is given a moment to free
// programs and cgroups.
func (s Snapshot) NothingLeft(t testing.TB, nodes ...*Node) {
	t.Helper()
	Eventually(t, 15*time.Second, "the machine to be as before", func() error {
		now, err := TakeSnapshot()
		if err != nil {
			return err
		}
		left := s.left(now)
		for _, n := range nodes {
			remains, err := n.Remains()
			if err != nil {
				return err
			}
			left = append(left, remains...)
		}
		if len(left) > 0 {
			return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
		return nil
	})
}

func addMounts(s Snapshot) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 {
			s["mount "+f[4]] = true
		}
	}
	return nil
}

func addDirectories(s Snapshot) error {
	for _, dir := range []string{
		"/run/netns", "/sys/fs/bpf", "/run/bothy", "/var/lib/bothy", "/run/containerd", "/run/runc",
		"/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/opt/cni", "/etc/cni",
	} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s["directory "+dir] = true
		for _, e := range entries {
			s["file "+filepath.Join(dir, e.Name())] = true
		}
	}
	return nil
}

func addForwarding(s Snapshot) error {
	files, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/forwarding")
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(filepath.Dir(file)), "bothy-") {
			continue // the link of a node, which goes with it
		}
		if data, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(data)) == "1" {
			s["forwarding "+file] = true
		}
	}
	return nil
}

// addRules leaves routes alone: those of a node go with its link, which is looked for by name.
func addRules(s Snapshot) error {
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list routing rules: %w", err)
	}
	for _, r := range rules {
		s["routing rule "+r.String()] = true
	}
	return nil
}
