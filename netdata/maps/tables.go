package maps

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
)

// layouts is the version of each pinned map's layout. Raise a number together
// with any change to the map's struct in bpf/src/tables.h.
var layouts = map[string]int{
	"affinities":     1,
	"announced":      1,
	"ct":             1,
	"datagram_peers": 1,
	"drops":          1,
	"endpoints":      1,
	"fragments":      1,
	"ifaces":         1,
	"nats":           1,
	"node_addrs":     1,
	"services":       1,
	"slots":          1,
	"sock_peers":     1,
	"source_ranges":  1,
	"state":          1,
	"unmasqueraded":  1,
}

// Sizes are the capacities that depend on the machine; zero keeps the default
// of the program source.
type Sizes struct {
	// Flows is the number of rows of conntrack and of the translation table.
	// A row of each costs about 100 bytes, allocated in advance.
	Flows uint32
}

// Tables are the opened maps.
type Tables struct {
	dir  string
	byID map[string]*ebpf.Map
}

// Open opens every map of spec under dir, a directory of a bpffs, and creates
// and pins those that do not exist. A pinned map whose size differs from spec
// is kept as it is: its content matters more. The maps of a spec that is
// then loaded must be replaced by [Tables.Replacements].
func Open(dir string, spec *ebpf.CollectionSpec, sizes Sizes) (*Tables, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create %s (is it on a bpffs?): %w", dir, err)
	}
	t := &Tables{dir: dir, byID: map[string]*ebpf.Map{}}
	for _, name := range slices.Sorted(maps.Keys(layouts)) {
		ms := spec.Maps[name]
		if ms == nil {
			t.Close()
			return nil, fmt.Errorf("map %q is not in the programs", name)
		}
		if sizes.Flows != 0 && (name == "ct" || name == "nats") {
			ms.MaxEntries = sizes.Flows
		}
		m, err := openOne(filepath.Join(dir, pinName(name)), ms)
		if err != nil {
			t.Close()
			return nil, err
		}
		t.byID[name] = m
	}
	return t, nil
}

func pinName(name string) string {
	return fmt.Sprintf("%s_v%d", name, layouts[name])
}

func openOne(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned map %s: %w", path, err)
	}
	spec.MaxEntries = m.MaxEntries()
	if err := spec.Compatible(m); err != nil {
		m.Close()
		return nil, fmt.Errorf("pinned map %s has another layout under the same version: %w", path, err)
	}
	return m, nil
}

func create(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("create map %s of %d rows: %w", spec.Name, spec.MaxEntries, err)
	}
	if err := m.Pin(path); err != nil {
		m.Close()
		return nil, fmt.Errorf("pin map at %s: %w", path, err)
	}
	return m, nil
}

// Replacements is what ebpf.CollectionOptions.MapReplacements wants.
func (t *Tables) Replacements() map[string]*ebpf.Map {
	return maps.Clone(t.byID)
}

// Commit removes the pins of other layout versions. Call it when no attached
// program uses them any more.
func (t *Tables) Commit() error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	keep := map[string]bool{}
	for name := range layouts {
		keep[pinName(name)] = true
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(t.dir, e.Name())); err != nil {
			return fmt.Errorf("remove pin of an old layout: %w", err)
		}
	}
	return nil
}

// Close closes the file descriptors. Pinned maps live on.
func (t *Tables) Close() {
	for _, m := range t.byID {
		m.Close()
	}
}

// State is the one row of the state table.
type State struct {
	// PolicyRevision is stamped on every flow when it is admitted.
	PolicyRevision uint32
	// ServicesSynced says that the services table has mirrored the API at least
	// once. Before, an unknown service address is dropped, so that the client tries again;
	// afterwards it is refused.
	ServicesSynced bool
}

// State reads the node's state row.
func (t *Tables) State() (State, error) {
	var row [2]uint32
	if err := t.byID["state"].Lookup(uint32(0), &row); err != nil {
		return State{}, fmt.Errorf("read state row: %w", err)
	}
	return State{PolicyRevision: row[0], ServicesSynced: row[1] != 0}, nil
}

// SetServicesSynced records that the services table is complete.
func (t *Tables) SetServicesSynced() error {
	s, err := t.State()
	if err != nil {
		return err
	}
	if s.ServicesSynced {
		return nil
	}
	if err := t.byID["state"].Put(uint32(0), [2]uint32{s.PolicyRevision, 1}); err != nil {
		return fmt.Errorf("write state row: %w", err)
	}
	return nil
}
