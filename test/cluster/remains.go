package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/google/nftables"
)

// Remains lists what this machine has of the node: processes, cgroups, link,
// firewall table, mounts, and the BPF programs that the node had when it was
// last stopped.
func (n *Node) Remains() ([]string, error) {
	var out []string
	for _, look := range []func() ([]string, error){
		n.remainingProcesses, n.remainingCgroups, n.remainingLinks, n.remainingTables, n.remainingMounts, n.remainingPrograms,
	} {
		found, err := look()
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// mark is in the name of everything a node makes outside its state directory.
func (n *Node) mark() string { return "bothy-" + n.Name }

func (n *Node) remainingProcesses() ([]string, error) {
	var out []string
	for _, p := range allProcesses() {
		cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
		if err == nil && strings.Contains(string(cgroups), "/"+n.mark()) {
			out = append(out, "process "+p.String())
		}
	}
	return out, nil
}

func (n *Node) remainingCgroups() ([]string, error) {
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone while we looked
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == n.mark():
			out = append(out, "cgroup "+path)
			return fs.SkipDir
		}
		return nil
	})
	return out, err
}

func (n *Node) remainingLinks() ([]string, error) {
	links, err := net.Interfaces()
	var out []string
	for _, l := range links {
		if l.Name == n.mark() {
			out = append(out, "link "+l.Name)
		}
	}
	return out, err
}

func (n *Node) remainingTables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, nil //nolint:nilerr // a kernel without nftables has no tables
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, nil //nolint:nilerr // likewise
	}
	var out []string
	for _, table := range tables {
		if table.Name == n.mark() {
			out = append(out, "firewall table "+table.Name)
		}
	}
	return out, nil
}

func (n *Node) remainingMounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && (strings.HasPrefix(f[4], n.State) || strings.Contains(line, n.mark())) {
			out = append(out, "mount "+f[4])
		}
	}
	return out, nil
}

func (n *Node) remainingPrograms() ([]string, error) {
	var out []string
	for _, id := range n.programs {
		p, err := ebpf.NewProgramFromID(id)
		if err == nil {
			p.Close()
			out = append(out, fmt.Sprintf("BPF program %d", id))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look at BPF program %d: %w", id, err)
		}
	}
	return out, nil
}

// Programs lists the loaded BPF programs that use maps pinned in the node.
func (n *Node) Programs() ([]ebpf.ProgramID, error) {
	pid, err := n.initPID()
	if err != nil {
		return nil, err
	}
	maps, err := pinnedMaps(fmt.Sprintf("/proc/%d/root/run/bothy/bpf", pid))
	if err != nil {
		return nil, err
	}
	var out []ebpf.ProgramID
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, fs.ErrNotExist) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("list BPF programs: %w", err)
		}
		if usesAny(id, maps) {
			out = append(out, id)
		}
	}
}

func usesAny(id ebpf.ProgramID, maps []ebpf.MapID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false // gone while we looked
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return false
	}
	used, _ := info.MapIDs()
	return slices.ContainsFunc(used, func(m ebpf.MapID) bool { return slices.Contains(maps, m) })
}

func pinnedMaps(dir string) ([]ebpf.MapID, error) {
	var out []ebpf.MapID
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil // a program or a link
		}
		defer m.Close()
		if info, err := m.Info(); err == nil {
			if id, ok := info.ID(); ok {
				out = append(out, id)
			}
		}
		return nil
	})
	return out, err
}
