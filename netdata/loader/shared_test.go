package loader

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/maps"
)

// The kernel takes a second to verify the programs, and an emulated machine most of a minute.
// So all tests run the same ones, and each begins with tables as they are after [Load].
// What Load itself does is tested with dataplanes of the test's own.

// verified is the one dataplane of a test process; it ends with the process.
var verified struct {
	sync.Once
	*Dataplane
	err error
}

// fresh returns the shared dataplane with tables that are as good as new.
func fresh(t testing.TB) *Dataplane {
	t.Helper()
	verified.Do(func() { verified.Dataplane, verified.err = loadUnpinned(t) })
	if verified.Dataplane == nil && verified.err == nil {
		t.Skip("this machine cannot load eBPF programs; the first test says why")
	}
	if verified.err != nil {
		t.Fatal(verified.err)
	}
	for family := range verified.programs {
		for name, m := range verified.Tables.Replacements(family) {
			if err := wipe(m); err != nil {
				t.Fatalf("empty table %s of %s: %v", name, family, err)
			}
		}
	}
	return verified.Dataplane
}

// loadUnpinned needs no bpffs once it has returned: programs and maps are held by their descriptors.
func loadUnpinned(t testing.TB) (*Dataplane, error) {
	t.Helper()
	start := time.Now()
	d, err := Load(testConfig(mountBPF(t)), slog.New(slog.DiscardHandler))
	t.Logf("the programs were verified in %.2f s", time.Since(start).Seconds())
	return d, err
}

// testConfig is that of a node with both families.
func testConfig(bpffs string) Config {
	return Config{
		Dir:          filepath.Join(bpffs, "test"),
		NodeIPs:      []netip.Addr{netip.MustParseAddr(node), netip.MustParseAddr(node6)},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")},
		PodCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")},
		ClusterDNS:   []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")},
		Sizes:        maps.Sizes{Flows: 1024},
	}
}

// wipe makes a table what it was when it was made.
func wipe(m *ebpf.Map) error {
	switch m.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
		return deleteAll(m)
	case ebpf.Array, ebpf.PerCPUArray:
		return zeroAll(m)
	case ebpf.ArrayOfMaps:
		if err := m.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil // what is kept with sockets went with them
}

func deleteAll(m *ebpf.Map) error {
	for {
		key, err := m.NextKeyBytes(nil)
		if err != nil || key == nil {
			return err
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
}

// wiped is how many rows of an array are zeroed: no test writes slots beyond, and no test's pod has a
// place beyond.
const wiped = 1024

func zeroAll(m *ebpf.Map) error {
	var zero any = make([]byte, m.ValueSize())
	if m.Type() == ebpf.PerCPUArray {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return err
		}
		row := make([]byte, m.ValueSize())
		each := make([][]byte, cpus)
		for i := range each {
			each[i] = row
		}
		zero = each
	}
	for i := range min(m.MaxEntries(), wiped) {
		if err := m.Put(i, zero); err != nil {
			return err
		}
	}
	return nil
}

// What one test leaves in the tables, the next does not find: else the order would decide.
func TestTablesAreSharedEmpty(t *testing.T) {
	b := load(t)
	b.service("10.96.0.20:80", maps.TCP, 0, 60, podB+":8080")
	b.service(at6("fd00:96::20", "80"), maps.TCP, 0, 60, at6(podB6, "8080"))
	b.must(b.Tables.SetServicesSynced())
	b.isolate(map[string]uint32{podB: maps.IsolatedIngress | subjectB})
	b.allow(ingressRule(peerA, 0, 0, 0))
	_, err := b.Tables.Listen(maps.AllEvents)
	b.must(err)
	b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagSYN))
	b.run(b.programs[maps.IPv6].FromPod, tcp(at6(podA6, "1000"), "[fd00:96::20]:80", flagSYN).frame())
	b.run(b.objs.FromPod, udp("10.244.1.99:1000", podB+":80").frame())

	fills, err := b.Tables.Fills()
	b.must(err)
	filled := map[string]bool{}
	for _, f := range fills {
		filled[f.Table] = f.Entries > 0
	}
	for _, table := range []string{"services", "services6", "endpoints", "ct", "ct6", "nats", "nats6", "affinities", "affinities6", "policy_peers", "policy_rules"} {
		if !filled[table] {
			t.Errorf("table %s is empty before it is emptied: the test proves nothing of it", table)
		}
	}

	d := fresh(t)
	fills, err = d.Tables.Fills()
	b.must(err)
	for _, f := range fills {
		if f.Entries > 0 {
			t.Errorf("table %s has %d rows", f.Table, f.Entries)
		}
	}
	state, err := d.Tables.State()
	b.must(err)
	drops, err := d.Tables.DropCounts()
	b.must(err)
	if state != (maps.State{}) || len(drops) > 0 {
		t.Errorf("state %+v, drops %v", state, drops)
	}
	for _, family := range []maps.Family{maps.IPv4, maps.IPv6} {
		slots := d.Tables.Replacements(family)["slots"]
		row, err := slots.LookupBytes(uint32(0))
		b.must(err)
		for _, by := range row {
			if by != 0 {
				t.Fatalf("a slot of %s has % x", family, row)
			}
		}
	}
	var ring uint32
	if err := d.Tables.Replacements(maps.IPv4)["event_ring"].Lookup(uint32(0), &ring); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the ring of a listener is still there: %v", err)
	}
}

// A second Load, by the next agent, verifies its programs for the maps that are there.
func TestLoadKeepsWhatIsInTheTables(t *testing.T) {
	dir := mountBPF(t)
	first, err := Load(testConfig(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{first, t, first.programs[maps.IPv4]}
	b.populate()
	b.service("10.96.0.20:80", maps.TCP, 0, 0, podB+":8080")
	first.Close()

	second, err := Load(testConfig(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	b = &bench{second, t, second.programs[maps.IPv4]}
	verdict, out := b.asPod(tcp(podA+":1000", "10.96.0.20:80", flagSYN))
	want(t, verdict, redirect, out, podA+":1000", podB+":8080")
}

// The places of pods are a copy of the table of endpoints. An agent that knew nothing of them may have
// changed that table since they were written.
func TestLoadMakesThePlacesWhatTheEndpointsAre(t *testing.T) {
	dir := mountBPF(t)
	first, err := Load(testConfig(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{first, t, first.programs[maps.IPv4]}
	b.populate()
	gone, err := netip.MustParseAddr(podB).MarshalBinary()
	b.must(err)
	b.must(first.Tables.Replacements(maps.IPv4)["endpoints"].Delete(gone))
	frame := tcp(podA+":1000", podB+":80", flagSYN)
	if verdict, _ := b.run(b.objs.FromPod, frame.frame()); verdict != redirect {
		t.Fatalf("verdict %d: the programs do not look at the places, so the test proves nothing", verdict)
	}
	first.Close()

	second, err := Load(testConfig(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	b = &bench{second, t, second.programs[maps.IPv4]}
	if verdict, _ := b.run(b.objs.FromPod, frame.frame()); verdict != pass {
		t.Errorf("verdict %d for a pod that is gone, want %d: the stack's business", verdict, pass)
	}
	if verdict, _ := b.run(b.objs.FromPod, tcp(podA+":1000", podA+":80", flagSYN).frame()); verdict != redirect {
		t.Errorf("verdict %d for a pod that is there, want %d", verdict, redirect)
	}
}
