package services

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Table is where rows go: maps.Tables, or a fake in tests.
type Table interface {
	Services() (map[tables.Frontend]tables.ServiceRow, error)
	PutService(f tables.Frontend, r tables.ServiceRow, isNew bool) error
	DeleteService(tables.Frontend) error
	SlotCapacity(tables.Family) uint32
	ReadSlots(of tables.Family, base uint32, count uint16) ([]netip.AddrPort, error)
	WriteSlots(base uint32, backends []netip.AddrPort) error
	SourceRanges() (map[uint32][]netip.Prefix, error)
	PutSourceRange(service uint32, clients netip.Prefix) error
	DeleteSourceRange(service uint32, clients netip.Prefix) error
	SetServicesSynced() error
}

// FlowCutter ends what still goes to backends that are gone: a datagram flow
// has no end of its own, and a client may be bound to them by session affinity.
type FlowCutter interface {
	CutBackends(f tables.Frontend, service uint32, gone []netip.AddrPort) error
}

// Writer is the one writer of the services and slots tables. It is not safe
// for concurrent use.
type Writer struct {
	table     Table
	cutter    FlowCutter
	extents   map[tables.Family]*extents
	installed map[tables.Frontend]*installed
	owned     map[string][]tables.Frontend
	nextID    uint32
	backends  int // of all frontends
}

type installed struct {
	owner    string // "" until a Service claims what an earlier agent wrote
	row      tables.ServiceRow
	backends []netip.AddrPort
	sources  []netip.Prefix
}

// NewWriter takes over what is in the tables.
func NewWriter(table Table, cutter FlowCutter) (*Writer, error) {
	rows, err := table.Services()
	if err != nil {
		return nil, err
	}
	w := &Writer{
		table:     table,
		cutter:    cutter,
		installed: map[tables.Frontend]*installed{},
		owned:     map[string][]tables.Frontend{},
		nextID:    1,
	}
	sources, err := table.SourceRanges()
	if err != nil {
		return nil, err
	}
	used := map[tables.Family][]extent{}
	for f, row := range rows {
		backends, err := table.ReadSlots(f.Family(), row.Base, row.Count)
		if err != nil {
			return nil, err
		}
		w.installed[f] = &installed{row: row, backends: backends, sources: sortedSources(sources[row.ID])}
		delete(sources, row.ID)
		w.backends += len(backends)
		used[f.Family()] = append(used[f.Family()], extent{row.Base, uint32(row.Count)})
		w.nextID = max(w.nextID, row.ID+1)
	}
	if err := w.dropSources(sources); err != nil {
		return nil, err
	}
	w.extents = map[tables.Family]*extents{}
	for _, f := range []tables.Family{tables.IPv4, tables.IPv6} {
		w.extents[f] = newExtents(table.SlotCapacity(f), used[f], time.Now)
	}
	return w, nil
}

// Apply makes rows the frontends of owner, a Service's namespace/name. It does
// what it can and returns what it could not.
func (w *Writer) Apply(owner string, rows []Row) error {
	var errs []error
	want := map[tables.Frontend]bool{}
	for _, r := range rows {
		if want[r.Frontend] {
			continue
		}
		if err := w.put(owner, r); err != nil {
			errs = append(errs, err)
		}
		if w.ownedBy(r.Frontend, owner) {
			want[r.Frontend] = true
		}
	}
	for _, f := range w.owned[owner] {
		if want[f] {
			continue
		}
		if err := w.remove(f); err != nil {
			errs = append(errs, err)
			want[f] = true
		}
	}
	if len(want) == 0 {
		delete(w.owned, owner)
	} else {
		w.owned[owner] = slices.Collect(maps.Keys(want))
	}
	return errors.Join(errs...)
}

func (w *Writer) ownedBy(f tables.Frontend, owner string) bool {
	in := w.installed[f]
	return in != nil && in.owner == owner
}

func (w *Writer) put(owner string, r Row) error {
	in := w.installed[r.Frontend]
	if in != nil && in.owner != "" && in.owner != owner {
		return fmt.Errorf("%s is taken by service %s", r.Frontend, in.owner)
	}
	if len(r.Backends) > 1<<16-1 {
		return fmt.Errorf("%s has %d backends, at most 65535 are possible", r.Frontend, len(r.Backends))
	}
	sources := sortedSources(r.Sources)
	if in != nil && in.row.Affinity == r.Affinity && in.row.Flags == r.Flags &&
		slices.Equal(in.backends, r.Backends) && slices.Equal(in.sources, sources) {
		in.owner = owner
		return nil
	}
	next := &installed{owner: owner, backends: r.Backends, sources: sources, row: tables.ServiceRow{
		Count: uint16(len(r.Backends)), Affinity: r.Affinity, Flags: r.Flags,
	}}
	if in != nil {
		next.row.ID = in.row.ID
	} else {
		next.row.ID = w.nextID
		w.nextID++
	}
	slots := w.extents[r.Frontend.Family()]
	x, err := slots.take(len(r.Backends))
	if err != nil {
		return fmt.Errorf("%s: %w", r.Frontend, err)
	}
	next.row.Base = x.base
	if err := w.table.WriteSlots(x.base, r.Backends); err != nil {
		slots.put(x)
		return err
	}
	if err := w.install(r.Frontend, next, in == nil); err != nil {
		slots.put(x)
		return err
	}
	if in == nil {
		return nil
	}
	slots.put(extent{in.row.Base, uint32(in.row.Count)})
	stale := map[uint32][]netip.Prefix{in.row.ID: slices.DeleteFunc(slices.Clone(in.sources), func(p netip.Prefix) bool {
		return slices.Contains(sources, p)
	})}
	return errors.Join(w.dropSources(stale), w.cut(r.Frontend, in, r.Backends))
}

// install writes a row, after the clients who may use it: nobody is shut out by the order of
// writes.
func (w *Writer) install(f tables.Frontend, next *installed, isNew bool) error {
	for _, p := range next.sources {
		if err := w.table.PutSourceRange(next.row.ID, p); err != nil {
			return err
		}
	}
	if err := w.table.PutService(f, next.row, isNew); err != nil {
		if isNew {
			err = errors.Join(err, w.dropSources(map[uint32][]netip.Prefix{next.row.ID: next.sources}))
		}
		return err
	}
	if before := w.installed[f]; before != nil {
		w.backends -= len(before.backends)
	}
	w.backends += len(next.backends)
	w.installed[f] = next
	return nil
}

func (w *Writer) dropSources(stale map[uint32][]netip.Prefix) error {
	var errs []error
	for id, ranges := range stale {
		for _, p := range ranges {
			errs = append(errs, w.table.DeleteSourceRange(id, p))
		}
	}
	return errors.Join(errs...)
}

func sortedSources(ranges []netip.Prefix) []netip.Prefix {
	out := slices.Clone(ranges)
	slices.SortFunc(out, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out)
}

func (w *Writer) remove(f tables.Frontend) error {
	in := w.installed[f]
	if in == nil {
		return nil
	}
	if err := w.table.DeleteService(f); err != nil {
		return err
	}
	w.backends -= len(in.backends)
	delete(w.installed, f)
	w.extents[f.Family()].put(extent{in.row.Base, uint32(in.row.Count)})
	return errors.Join(w.dropSources(map[uint32][]netip.Prefix{in.row.ID: in.sources}), w.cut(f, in, nil))
}

func (w *Writer) cut(f tables.Frontend, before *installed, after []netip.AddrPort) error {
	var gone []netip.AddrPort
	for _, b := range before.backends {
		if !slices.Contains(after, b) {
			gone = append(gone, b)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return w.cutter.CutBackends(f, before.row.ID, gone)
}

// Complete is called once every Service of the API has been applied: rows that no
// Service claimed are removed, and unknown service addresses are refused from
// now on.
func (w *Writer) Complete() error {
	var errs []error
	for f, in := range w.installed {
		if in.owner == "" {
			errs = append(errs, w.remove(f))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return w.table.SetServicesSynced()
}

// Counts returns the number of installed frontends and of their backends.
func (w *Writer) Counts() (frontends, backends int) {
	return len(w.installed), w.backends
}
