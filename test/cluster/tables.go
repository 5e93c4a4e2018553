package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cilium/ebpf"
)

// Table is one of the dataplane's maps.
type Table struct {
	// Rows is how many entries it has; 0 for arrays, which are always full.
	Rows int
	// Capacity is the most entries it takes.
	Capacity int
	// Bytes is what it occupies in the kernel.
	Bytes uint64
}

var layoutVersion = regexp.MustCompile(`_v[0-9]+$`)

// Tables reads the node's pinned maps, by the path of their pins without the layout's
// version.
func (n *Node) Tables() (map[string]Table, error) {
	dir, err := n.bpfDir()
	if err != nil {
		return nil, err
	}
	out := map[string]Table{}
	err = eachMap(dir, func(path string, m *ebpf.Map, info *ebpf.MapInfo) error {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		t := Table{Capacity: int(info.MaxEntries)}
		t.Bytes, _ = info.Memlock()
		if t.Rows, err = rows(m); err != nil {
			return fmt.Errorf("count the rows of %s: %w", name, err)
		}
		out[strings.TrimPrefix(layoutVersion.ReplaceAllString(name, ""), "maps/")] = t
		return nil
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("node %s has no maps in %s", n.Name, dir)
	}
	return out, err
}

func rows(m *ebpf.Map) (int, error) {
	switch m.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
	default:
		return 0, nil
	}
	// What goes while it is looked at may end the walk early.
	for {
		n := 0
		var key, value []byte
		it := m.Iterate()
		for it.Next(&key, &value) {
			n++
		}
		if err := it.Err(); !errors.Is(err, ebpf.ErrIterationAborted) {
			return n, err
		}
	}
}

// bpfDir is where the node pins its programs, links and maps.
func (n *Node) bpfDir() (string, error) { return n.Path("/run/bothy/bpf") }

// eachMap visits the maps pinned below a directory.
func eachMap(dir string, visit func(path string, m *ebpf.Map, info *ebpf.MapInfo) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil // a program or a link
		}
		defer m.Close()
		info, err := m.Info()
		if err != nil {
			return err
		}
		return visit(path, m, info)
	})
}
