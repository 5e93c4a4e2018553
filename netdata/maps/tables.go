package maps

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
)

// layout describes a pinned map.
type layout struct {
	// version is raised together with any change to the map's struct in
	// bpf/src/tables.h.
	version int
	// shared says that no address is in it: one map serves both families.
	shared bool
}

var layouts = map[string]layout{
	"affinities":     {version: 1},
	"announced":      {version: 1},
	"ct":             {version: 1},
	"datagram_peers": {version: 1},
	"drops":          {version: 2, shared: true},
	"endpoints":      {version: 2},
	"event_control":  {version: 1, shared: true},
	"event_cpus":     {version: 1, shared: true},
	"event_ring":     {version: 1, shared: true},
	"fragments":      {version: 1},
	"nats":           {version: 1},
	"near_pods":      {version: 1},
	"policy_peers":   {version: 1},
	"policy_rules":   {version: 1, shared: true},
	"node_addrs":     {version: 1},
	"services":       {version: 1},
	"slots":          {version: 1},
	"sock_peers":     {version: 1},
	"source_ranges":  {version: 1},
	"state":          {version: 1, shared: true},
	"tunnelled":      {version: 1},
	"unmasqueraded":  {version: 1},
}

// Sizes are the capacities that depend on the machine; zero keeps the default
// of the program source.
type Sizes struct {
	// Flows is the number of rows of conntrack and of the translation table. A
	// row of each costs about 200 bytes for IPv4 and 270 for IPv6 together, allocated in advance.
	Flows uint32
	// Divide makes the other large maps that many times smaller; 0 is 1.
	Divide uint32
}

// divided are the maps that [Sizes.Divide] makes smaller.
func divided(name string) bool {
	switch name {
	case "affinities", "datagram_peers", "services", "slots":
		return true
	}
	return false
}

func (s Sizes) apply(name string, spec *ebpf.MapSpec) {
	switch {
	case s.Flows != 0 && (name == "ct" || name == "nats"):
		spec.MaxEntries = s.Flows
	case s.Divide != 0 && divided(name):
		spec.MaxEntries /= s.Divide
	}
}

// Set is what the maps of one family are made from.
type Set struct {
	Spec  *ebpf.CollectionSpec
	Sizes Sizes
}

// Tables are the opened maps of the families that the node has.
type Tables struct {
	dir      string
	families [families]*family
	shared   map[string]*ebpf.Map

	stateMu sync.Mutex
}

// Open opens every map of the sets under dir, a directory of a bpffs, and creates
// and pins those that do not exist. A pinned map whose size differs from its spec
// is kept as it is: its content matters more. The maps of a spec that is
// then loaded must be replaced by [Tables.Replacements].
func Open(dir string, sets map[Family]Set) (*Tables, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create %s (is it on a bpffs?): %w", dir, err)
	}
	t := &Tables{dir: dir, shared: map[string]*ebpf.Map{}}
	for _, f := range slices.Sorted(maps.Keys(sets)) {
		t.families[f] = &family{family: f, byID: map[string]*ebpf.Map{}}
		for _, name := range slices.Sorted(maps.Keys(layouts)) {
			if err := t.open(t.families[f], name, sets[f]); err != nil {
				t.Close()
				return nil, err
			}
		}
		if err := pick(t.families[f], syncNear[Addr4], syncNear[Addr6])(t.families[f]); err != nil {
			t.Close()
			return nil, err
		}
	}
	return t, nil
}

func (t *Tables) open(f *family, name string, set Set) error {
	spec := set.Spec.Maps[name]
	if spec == nil {
		return fmt.Errorf("map %q is not in the programs for %s", name, f.family)
	}
	if m := t.shared[name]; m != nil {
		f.byID[name] = m
		spec.MaxEntries = m.MaxEntries()
		return nil
	}
	set.Sizes.apply(name, spec)
	m, err := openOne(filepath.Join(t.dir, pinName(name, f.family)), spec)
	if err != nil {
		return err
	}
	f.byID[name] = m
	if layouts[name].shared {
		t.shared[name] = m
	}
	return nil
}

func pinName(name string, f Family) string {
	l := layouts[name]
	if f == IPv6 && !l.shared {
		name += "6"
	}
	return fmt.Sprintf("%s_v%d", name, l.version)
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

// Has says whether the node has maps of that family.
func (t *Tables) Has(f Family) bool { return t.families[f] != nil }

// Replacements is what ebpf.CollectionOptions.MapReplacements wants for the programs of
// a family.
func (t *Tables) Replacements(f Family) map[string]*ebpf.Map {
	return maps.Clone(t.families[f].byID)
}

// Commit removes the pins of other layout versions, and those of a family that the node has
// no more. Call it when no attached program uses them any more.
func (t *Tables) Commit() error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	keep := map[string]bool{}
	for f, has := range t.families {
		if has == nil {
			continue
		}
		for name := range layouts {
			keep[pinName(name, Family(f))] = true
		}
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
	for _, f := range t.families {
		if f == nil {
			continue
		}
		for _, m := range f.byID {
			m.Close() // a shared one is closed twice, which does no harm
		}
	}
}

// State is the one row of the state table, which both families share.
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
	if err := t.shared["state"].Lookup(uint32(0), &row); err != nil {
		return State{}, fmt.Errorf("read state row: %w", err)
	}
	return State{PolicyRevision: row[0], ServicesSynced: row[1] != 0}, nil
}

// SetServicesSynced records that the services table is complete.
func (t *Tables) SetServicesSynced() error {
	return t.changeState(func(s *State) { s.ServicesSynced = true })
}

// changeState is for several writers of the one row, each of its own field.
func (t *Tables) changeState(change func(*State)) error {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	s, err := t.State()
	if err != nil {
		return err
	}
	before := s
	if change(&s); s == before {
		return nil
	}
	row := [2]uint32{s.PolicyRevision}
	if s.ServicesSynced {
		row[1] = 1
	}
	if err := t.shared["state"].Put(uint32(0), row); err != nil {
		return fmt.Errorf("write state row: %w", err)
	}
	return nil
}
