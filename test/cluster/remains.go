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
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
)

// Remains lists what this machine has of the node: processes, cgroups, link,
// firewall table, mounts, and the BPF programs, maps and attachments and the network
// namespaces that the node had when it was last stopped.
func (n *Node) Remains() ([]string, error) {
	var out []string
	for _, look := range []func() ([]string, error){
		n.remainingProcesses, n.remainingCgroups, n.remainingLinks, n.remainingTables, n.remainingMounts, n.remainingBPF, n.remainingNamespaces,
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

// bridge is what several nodes share.
func (n *Node) bridge() string { return "bothy0-" + n.Name }

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
		if l.Name == n.mark() || l.Name == n.bridge() {
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
		if table.Name == n.mark() || table.Name == n.bridge() {
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

// belongings are what a running node has in the kernel and is not found by a name.
type belongings struct {
	programs   []ebpf.ProgramID
	maps       []ebpf.MapID
	links      []link.ID
	namespaces []string // as in /proc/PID/ns/net
}

// belongings looks at a node that runs.
func (n *Node) belongings() (b belongings, err error) {
	dir, err := n.bpfDir()
	if err != nil {
		return b, err
	}
	if b.programs, err = n.Programs(); err != nil {
		return b, err
	}
	if b.maps, err = pinnedMaps(dir); err != nil {
		return b, err
	}
	if b.links, err = linksOf(b.programs); err != nil {
		return b, err
	}
	b.namespaces, err = n.namespaces()
	return b, err
}

func (n *Node) remainingBPF() ([]string, error) {
	var out []string
	for _, id := range n.had.programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			p.Close()
			out = append(out, fmt.Sprintf("BPF program %d", id))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look at BPF program %d: %w", id, err)
		}
	}
	for _, id := range n.had.maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			m.Close()
			out = append(out, fmt.Sprintf("BPF map %d", id))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look at BPF map %d: %w", id, err)
		}
	}
	for _, id := range n.had.links {
		if l, err := link.NewFromID(id); err == nil {
			l.Close()
			out = append(out, fmt.Sprintf("BPF link %d", id))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look at BPF link %d: %w", id, err)
		}
	}
	return out, nil
}

// linksOf lists the attachments of programs.
func linksOf(programs []ebpf.ProgramID) ([]link.ID, error) {
	var out []link.ID
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return nil, fmt.Errorf("look at a BPF link: %w", err)
		}
		if slices.Contains(programs, info.Program) {
			out = append(out, info.ID)
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list BPF links: %w", err)
	}
	return out, nil
}

// namespaces lists the network namespaces of the node's processes, pods included.
func (n *Node) namespaces() ([]string, error) {
	host, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range allProcesses() {
		cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
		if err != nil || !strings.Contains(string(cgroups), "/"+n.mark()) {
			continue
		}
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.PID))
		if err == nil && ns != host && !slices.Contains(out, ns) {
			out = append(out, ns)
		}
	}
	return out, nil
}

// remainingNamespaces looks who is in one of the node's namespaces or holds it by a mount.
func (n *Node) remainingNamespaces() ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ns := range n.had.namespaces {
		for _, p := range allProcesses() {
			if now, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.PID)); err == nil && now == ns {
				out = append(out, fmt.Sprintf("process %s in namespace %s", p, ns))
			}
		}
		if strings.Contains(string(mounts), ns) {
			out = append(out, "mount of namespace "+ns)
		}
	}
	return out, nil
}

// Programs lists the loaded BPF programs that use maps pinned in the node.
func (n *Node) Programs() ([]ebpf.ProgramID, error) {
	dir, err := n.bpfDir()
	if err != nil {
		return nil, err
	}
	maps, err := pinnedMaps(dir)
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
	err := eachMap(dir, func(_ string, _ *ebpf.Map, info *ebpf.MapInfo) error {
		if id, ok := info.ID(); ok {
			out = append(out, id)
		}
		return nil
	})
	return out, err
}
