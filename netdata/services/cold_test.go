package services

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/loader"
	"github.com/bothy-os/bothy/netdata/maps"
)

const (
	manyServices  = 10000
	manyEndpoints = 10 // of each of them
)

// BenchmarkCold is a node that starts with 10 000 Services of 10 endpoints each: from the objects in
// the caches of the informers to the last row of the kernel's tables. What it prints beside the time is the memory
// of the tables, as the kernel counts it, and what the writer keeps for itself.
func BenchmarkCold(b *testing.B) {
	services, endpointSlices := manyObjects()
	for b.Loop() {
		b.StopTimer()
		tables := realTables(b)
		before := heap()
		r := manyRun(b, tables, services, endpointSlices)
		b.StartTimer()
		if err := r.applyAll(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if frontends, backends := r.writer.Counts(); frontends != manyServices || backends != manyServices*manyEndpoints {
			b.Fatalf("%d frontends and %d backends in the tables", frontends, backends)
		}
		b.ReportMetric((heap()-before)/1e6, "writer-MB")
		runtime.KeepAlive(r)
		b.ReportMetric(tableBytes(b, tables)/1e6, "tables-MB")
		b.StartTimer()
	}
}

// BenchmarkChange is one endpoint that changes among as many.
func BenchmarkChange(b *testing.B) {
	services, endpointSlices := manyObjects()
	r := manyRun(b, realTables(b), services, endpointSlices)
	if err := r.applyAll(); err != nil {
		b.Fatal(err)
	}
	key := services.ListKeys()[0]
	found, err := SlicesOf(endpointSlices, key)
	if err != nil || len(found) != 1 {
		b.Fatal(found, err)
	}
	// Nobody changes so fast: freed slots would not be used again in time.
	clock := time.Now()
	for _, x := range r.writer.extents {
		x.now = func() time.Time { return clock }
	}
	for i := 0; b.Loop(); i++ {
		clock = clock.Add(2 * reuseAfter)
		next := found[0].DeepCopy()
		next.Endpoints[0].Addresses = []string{fmt.Sprintf("10.9.%d.%d", i>>8&255, i&255)}
		if err := endpointSlices.Update(next); err != nil {
			b.Fatal(err)
		}
		if err := r.apply(key); err != nil {
			b.Fatal(err)
		}
	}
}

func manyRun(tb testing.TB, table Table, services, endpointSlices cache.Indexer) *run {
	tb.Helper()
	node := Node{Name: "here", IPs: []netip.Addr{netip.MustParseAddr("192.168.50.1")}}
	c := NewController(nil, nil, table, nobody{}, node, slog.New(slog.DiscardHandler))
	r, err := c.newRun(corelisters.NewServiceLister(services), endpointSlices)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.queue.ShutDown)
	return r
}

// nobody has flows.
type nobody struct{}

func (nobody) CutBackends(maps.Frontend, uint32, []netip.AddrPort) error { return nil }

func manyObjects() (services, endpointSlices cache.Indexer) {
	services = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	endpointSlices = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{byService: serviceOfSlice})
	port, name, proto, ready, here := int32(8080), "http", corev1.ProtocolTCP, true, "there"
	for i := range manyServices {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("ns", i%100), Name: fmt.Sprint("svc", i)}}
		svc.Spec.ClusterIP = netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}).String()
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
		svc.Spec.Ports = []corev1.ServicePort{{Name: name, Protocol: proto, Port: 80}}
		_ = services.Add(svc) // it only fails for objects without metadata
		slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
		slice.Namespace, slice.Name = svc.Namespace, svc.Name+"-1"
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: svc.Name}
		slice.Ports = []discoveryv1.EndpointPort{{Name: &name, Protocol: &proto, Port: &port}}
		for k := range manyEndpoints {
			v := i*manyEndpoints + k
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses:  []string{netip.AddrFrom4([4]byte{10, 244 + byte(v>>16), byte(v >> 8), byte(v)}).String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: &here,
			})
		}
		_ = endpointSlices.Add(slice)
	}
	return services, endpointSlices
}

// realTables are those of a node with both families, in the kernel.
func realTables(tb testing.TB) *maps.Tables {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root to load eBPF programs")
	}
	dir := tb.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		tb.Skipf("cannot mount a bpffs: %v", err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Errorf("unmount bpffs: %v", err)
		}
	})
	d, err := loader.Load(loader.Config{
		Dir:          filepath.Join(dir, "test"),
		NodeIPs:      []netip.Addr{netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("fd00:50::1")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		PodCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/14")},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return d.Tables
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func tableBytes(tb testing.TB, tables *maps.Tables) float64 {
	tb.Helper()
	fills, err := tables.Fills()
	if err != nil {
		tb.Fatal(err)
	}
	var sum uint64
	for _, f := range fills {
		if f.Table == "services" || f.Table == "slots" {
			sum += f.Bytes
		}
	}
	return float64(sum)
}
