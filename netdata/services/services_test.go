package services

import (
	"errors"
	"fmt"
	mapkeys "maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/netdata/maps"
)

// fakeTable is the services and slots tables in memory. It refuses what the
// programs could not cope with.
type fakeTable struct {
	services map[maps.Frontend]maps.ServiceRow
	slots    map[maps.Family][]netip.AddrPort
	sources  map[uint32][]netip.Prefix
	synced   bool
	writes   int
	cuts     []string
	fail     error
}

func newFakeTable(capacity int) *fakeTable {
	return &fakeTable{
		services: map[maps.Frontend]maps.ServiceRow{}, sources: map[uint32][]netip.Prefix{},
		slots: map[maps.Family][]netip.AddrPort{
			maps.IPv4: make([]netip.AddrPort, capacity), maps.IPv6: make([]netip.AddrPort, capacity),
		},
	}
}

func (f *fakeTable) Services() (map[maps.Frontend]maps.ServiceRow, error) {
	out := map[maps.Frontend]maps.ServiceRow{}
	for k, v := range f.services {
		out[k] = v
	}
	return out, nil
}

func (f *fakeTable) PutService(k maps.Frontend, r maps.ServiceRow, isNew bool) error {
	if f.fail != nil {
		return f.fail
	}
	if _, exists := f.services[k]; exists == isNew {
		return fmt.Errorf("row %s: exists %t, said to be new %t", k, exists, isNew)
	}
	inside := k
	inside.Outside = false
	if k.Outside && f.services[inside].Flags&maps.ServiceOutsideView != 0 && f.services[k].ID == 0 {
		return fmt.Errorf("row %s comes after the one that refers to it", k)
	}
	if r.Flags&maps.ServiceSourceRanges == 0 && len(f.sources[r.ID]) > 0 {
		return fmt.Errorf("row %s has source ranges and does not say so", k)
	}
	f.writes++
	f.services[k] = r
	return nil
}

func (f *fakeTable) DeleteService(k maps.Frontend) error {
	f.writes++
	delete(f.services, k)
	return nil
}

func (f *fakeTable) SlotCapacity(of maps.Family) uint32 { return uint32(len(f.slots[of])) }

func (f *fakeTable) ReadSlots(of maps.Family, base uint32, count uint16) ([]netip.AddrPort, error) {
	return slices.Clone(f.slots[of][base : base+uint32(count)]), nil
}

func (f *fakeTable) WriteSlots(base uint32, backends []netip.AddrPort) error {
	if len(backends) == 0 {
		return nil
	}
	of := maps.FamilyOf(backends[0].Addr())
	// A slot that a row refers to must never change under a running program.
	for k, r := range f.services {
		if k.Family() == of && base < r.Base+uint32(r.Count) && r.Base < base+uint32(len(backends)) {
			return fmt.Errorf("slots [%d, +%d) are in use by %s", base, len(backends), k)
		}
	}
	copy(f.slots[of][base:], backends)
	return nil
}

func (f *fakeTable) SourceRanges() (map[uint32][]netip.Prefix, error) {
	out := map[uint32][]netip.Prefix{}
	for id, ranges := range f.sources {
		out[id] = slices.Clone(ranges)
	}
	return out, nil
}

func (f *fakeTable) PutSourceRange(id uint32, p netip.Prefix) error {
	if !slices.Contains(f.sources[id], p) {
		f.sources[id] = append(f.sources[id], p)
	}
	return nil
}

func (f *fakeTable) DeleteSourceRange(id uint32, p netip.Prefix) error {
	f.sources[id] = slices.DeleteFunc(f.sources[id], func(q netip.Prefix) bool { return p == q })
	if len(f.sources[id]) == 0 {
		delete(f.sources, id)
	}
	return nil
}

func (f *fakeTable) SetServicesSynced() error { f.synced = true; return nil }

func (f *fakeTable) CutBackends(k maps.Frontend, _ uint32, gone []netip.AddrPort) error {
	f.cuts = append(f.cuts, fmt.Sprintf("cut %s %v", k, gone))
	return nil
}

// dump is what a program would find.
func (f *fakeTable) dump() string {
	var lines []string
	for k, r := range f.services {
		line := fmt.Sprintf("%s %v", k, f.slots[k.Family()][r.Base:r.Base+uint32(r.Count)])
		if r.Affinity != 0 {
			line += fmt.Sprintf(" affinity=%ds", r.Affinity)
		}
		if r.Flags&maps.ServiceOutsideView != 0 {
			line += " inside"
		}
		if r.Flags&maps.ServiceDropEmpty != 0 {
			line += " drop"
		}
		if r.Flags&maps.ServiceSourceRanges != 0 {
			line += fmt.Sprintf(" for %v", sortedSources(f.sources[r.ID]))
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	slices.Sort(f.cuts)
	lines = append(lines, f.cuts...)
	f.cuts = nil
	return strings.Join(lines, "\n") + "\n"
}

func (f *fakeTable) leakedSources() string {
	left := mapkeys.Clone(f.sources)
	for _, r := range f.services {
		delete(left, r.ID)
	}
	if len(left) == 0 {
		return ""
	}
	return fmt.Sprint(left)
}

// world is the API's content, and what reads it.
type world struct {
	table    *fakeTable
	writer   *Writer
	services map[string]*corev1.Service
	slices   map[string]*discoveryv1.EndpointSlice
}

func (w *world) apply(t *testing.T, text []byte, remove bool) {
	t.Helper()
	for _, doc := range strings.Split(string(text), "\n---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case "Service":
			s := &corev1.Service{}
			strict(t, doc, s)
			w.services[s.Namespace+"/"+s.Name] = s
			if remove {
				delete(w.services, s.Namespace+"/"+s.Name)
			}
		case "EndpointSlice":
			s := &discoveryv1.EndpointSlice{}
			strict(t, doc, s)
			w.slices[s.Namespace+"/"+s.Name] = s
			if remove {
				delete(w.slices, s.Namespace+"/"+s.Name)
			}
		default:
			t.Fatalf("unknown kind %q in %q", kind.Kind, doc)
		}
	}
}

func strict(t *testing.T, doc string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
}

// sync does for all Services what the controller does for one.
func (w *world) sync() (problems []string) {
	keys := map[string]bool{}
	for k := range w.services {
		keys[k] = true
	}
	for k := range w.writer.owned {
		keys[k] = true
	}
	// Services that are gone first, so that what they held is free; the controller gets
	// there by trying again.
	order := slices.SortedFunc(mapkeys.Keys(keys), func(a, b string) int {
		if gone := w.services[a] == nil; gone != (w.services[b] == nil) {
			return map[bool]int{true: -1, false: 1}[gone]
		}
		return strings.Compare(a, b)
	})
	for _, key := range order {
		var rows []Row
		var errs []error
		if svc := w.services[key]; svc != nil {
			var mine []*discoveryv1.EndpointSlice
			for _, s := range w.slices {
				if sliceKey(s) == key {
					mine = append(mine, s)
				}
			}
			rows, errs = Compile(svc, mine, testNode)
		}
		if err := errors.Join(append(errs, w.writer.Apply(key, rows))...); err != nil {
			problems = append(problems, fmt.Sprintf("problem %s: %v", key, strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
	}
	slices.Sort(problems)
	return problems
}

var testNode = Node{
	Name: "node-a", Zone: "zone-a",
	IPs:        []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00:2::1")},
	ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")},
}

// TestScripts runs testdata/*.txtar. A script is a sequence of files:
// apply*.yaml and delete*.yaml change the API; restart has a new agent take over; want* is the
// tables' content, followed by what was cut since, and the problems.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { runScript(t, path) })
	}
}

func runScript(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	table := newFakeTable(64)
	w := &world{table: table, services: map[string]*corev1.Service{}, slices: map[string]*discoveryv1.EndpointSlice{}}
	w.restart(t)
	for _, file := range archive.Files {
		switch {
		case strings.HasPrefix(file.Name, "apply"):
			w.apply(t, file.Data, false)
		case strings.HasPrefix(file.Name, "delete"):
			w.apply(t, file.Data, true)
		case file.Name == "restart":
			w.restart(t)
		case strings.HasPrefix(file.Name, "want"):
			problems := w.sync()
			if err := w.writer.Complete(); err != nil {
				t.Fatal(err)
			}
			got := table.dump()
			for _, p := range problems {
				got += p + "\n"
			}
			if leaked := table.leakedSources(); leaked != "" {
				t.Errorf("%s: source ranges of rows that are gone: %s", file.Name, leaked)
			}
			if diff := cmp.Diff(string(file.Data), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file.Name, diff)
			}
			before := table.writes
			w.sync()
			if table.writes != before {
				t.Errorf("%s: applying the same again wrote %d rows", file.Name, table.writes-before)
			}
			table.cuts = nil
		default:
			t.Fatalf("unknown file %q", file.Name)
		}
	}
}

func (w *world) restart(t *testing.T) {
	t.Helper()
	writer, err := NewWriter(w.table, w.table)
	if err != nil {
		t.Fatal(err)
	}
	w.writer = writer
}

func TestRowsOfAnEarlierAgentServeUntilTheAPIIsRead(t *testing.T) {
	table := newFakeTable(64)
	kept := Row{Frontend: frontend("10.96.0.20:80"), Backends: backends("10.1.0.2:80", "10.1.0.3:80")}
	stale := Row{Frontend: frontend("10.96.0.21:80"), Backends: backends("10.1.0.4:80")}
	first, err := NewWriter(table, table)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.Apply("x/kept", []Row{kept}), first.Apply("x/stale", []Row{stale}), first.Complete()); err != nil {
		t.Fatal(err)
	}
	before := table.dump()
	second, err := NewWriter(table, table)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.dump(); got != before {
		t.Errorf("taking over changed the tables:\n%s", got)
	}
	writes := table.writes
	if err := second.Apply("x/kept", []Row{kept}); err != nil {
		t.Fatal(err)
	}
	if table.writes != writes {
		t.Error("a service that is as it was cost a write")
	}
	// The new one must not get slots that an unclaimed row still uses.
	if err := second.Apply("x/new", []Row{{Frontend: frontend("10.96.0.22:80"), Backends: backends("10.1.0.5:80")}}); err != nil {
		t.Fatal(err)
	}
	if err := second.Complete(); err != nil {
		t.Fatal(err)
	}
	want := "10.96.0.20:80/TCP [10.1.0.2:80 10.1.0.3:80]\n10.96.0.22:80/TCP [10.1.0.5:80]\ncut 10.96.0.21:80/TCP [10.1.0.4:80]\n"
	if diff := cmp.Diff(want, table.dump()); diff != "" {
		t.Error(diff)
	}
}

func TestFailedWriteIsTriedAgain(t *testing.T) {
	table := newFakeTable(64)
	w, err := NewWriter(table, table)
	if err != nil {
		t.Fatal(err)
	}
	row := Row{Frontend: frontend("10.96.0.20:80"), Backends: backends("10.1.0.2:80")}
	table.fail = errors.New("no memory")
	if err := w.Apply("x/y", []Row{row}); !errors.Is(err, table.fail) {
		t.Fatalf("got %v", err)
	}
	table.fail = nil
	if err := w.Apply("x/y", []Row{row}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("10.96.0.20:80/TCP [10.1.0.2:80]\n", table.dump()); diff != "" {
		t.Error(diff)
	}
}

func frontend(s string) maps.Frontend {
	return maps.Frontend{Addr: netip.MustParseAddrPort(s), Proto: maps.TCP}
}

func backends(s ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, b := range s {
		out = append(out, netip.MustParseAddrPort(b))
	}
	return out
}
