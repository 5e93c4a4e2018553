package pool

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

func allocator(t *testing.T) *Allocator {
	t.Helper()
	no := false
	a, err := NewAllocator([]v1alpha1.AddressPool{
		{Name: "site", Addresses: []string{"192.0.2.10-192.0.2.12", "2001:db8::/64"}},
		{Name: "mail", Addresses: []string{"192.0.2.50"}, AutoAssign: &no},
		{Name: "edge", Addresses: []string{"192.0.2.60"}, Namespaces: []string{"edge"}, ServiceLabels: map[string]string{"tier": "front"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func four(name string, change ...func(*Request)) Request {
	r := Request{Service: "default/" + name, Namespace: "default", Families: []corev1.IPFamily{corev1.IPv4Protocol}, AllNeeded: true, Ports: []string{"80/TCP"}}
	for _, c := range change {
		c(&r)
	}
	return r
}

func assign(t *testing.T, a *Allocator, r Request, want ...string) {
	t.Helper()
	got, err := a.Assign(r)
	if err != nil {
		t.Fatalf("%s: %v", r.Service, err)
	}
	var text []string
	for _, x := range got {
		text = append(text, x.String())
	}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Fatalf("%s: %s", r.Service, diff)
	}
}

func refuse(t *testing.T, a *Allocator, r Request, want string) {
	t.Helper()
	got, err := a.Assign(r)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("%s: got %v, %v; want an error with %q", r.Service, got, err, want)
	}
}

func TestAddressesAreGivenOnceAndKept(t *testing.T) {
	a := allocator(t)
	a.Reserve([]netip.Addr{netip.MustParseAddr("192.0.2.11")})
	assign(t, a, four("a"), "192.0.2.10")
	assign(t, a, four("a", func(r *Request) { r.Have = []netip.Addr{netip.MustParseAddr("192.0.2.10")} }), "192.0.2.10")
	assign(t, a, four("b"), "192.0.2.12")
	_, err := a.Assign(four("c"))
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "(site)") {
		t.Errorf("got %v, want that the pool is exhausted", err)
	}
	if !a.Release("default/a") || a.Release("default/a") {
		t.Error("release")
	}
	assign(t, a, four("c"), "192.0.2.10")
	// One that believes to have what another was given.
	refuse(t, a, four("d", func(r *Request) { r.Have = []netip.Addr{netip.MustParseAddr("192.0.2.12")} }), "no address is free")
}

func TestRequestedAddress(t *testing.T) {
	a := allocator(t)
	want := func(s string) func(*Request) {
		return func(r *Request) { r.Want = []netip.Addr{netip.MustParseAddr(s)} }
	}
	assign(t, a, four("a", want("192.0.2.12")), "192.0.2.12")
	assign(t, a, four("mail", want("192.0.2.50")), "192.0.2.50")
	refuse(t, a, four("b", want("192.0.2.12")), "in use by service default/a")
	refuse(t, a, four("b", want("203.0.113.1")), "in no pool")
	refuse(t, a, four("b", want("192.0.2.60")), "in no pool that is open to it")
	refuse(t, a, four("b", want("2001:db8::1")), "no cluster IP of that family")
}

func TestPoolsThatAreNotForEverybody(t *testing.T) {
	a := allocator(t)
	assign(t, a, four("mail", func(r *Request) { r.Pool = "mail" }), "192.0.2.50")
	refuse(t, a, four("x", func(r *Request) { r.Pool = "edge" }), "no pool")
	refuse(t, a, four("x", func(r *Request) { r.Pool, r.Namespace = "edge", "edge" }), "no pool")
	assign(t, a, four("x", func(r *Request) {
		r.Pool, r.Namespace, r.Labels = "edge", "edge", map[string]string{"tier": "front"}
	}), "192.0.2.60")
	for _, name := range []string{"a", "b", "c"} {
		if _, err := a.Assign(four(name)); err != nil {
			t.Fatal(err)
		}
	}
	refuse(t, a, four("d"), "no address is free")
}

func TestFamilies(t *testing.T) {
	a := allocator(t)
	both := func(r *Request) { r.Families = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} }
	assign(t, a, four("a", both), "192.0.2.10", "2001:db8::")
	for _, name := range []string{"b", "c"} {
		if _, err := a.Assign(four(name)); err != nil {
			t.Fatal(err)
		}
	}
	refuse(t, a, four("d", both), "no address is free in the pools with IPv4")
	assign(t, a, four("d", both, func(r *Request) { r.AllNeeded = false }), "2001:db8::1")
}

func TestSharing(t *testing.T) {
	a := allocator(t)
	share := func(key string, ports ...string) func(*Request) {
		return func(r *Request) { r.SharingKey, r.Ports = key, ports }
	}
	assign(t, a, four("a", share("k", "53/UDP")), "192.0.2.10")
	assign(t, a, four("b", share("k", "53/TCP")), "192.0.2.10")
	assign(t, a, four("c", share("k", "53/UDP", "80/TCP")), "192.0.2.11")
	assign(t, a, four("d", share("other", "443/TCP")), "192.0.2.12")
	a.Release("default/a")
	assign(t, a, four("e", share("k", "53/UDP")), "192.0.2.10")
}

func TestRequestOf(t *testing.T) {
	class := "else/where"
	svc := &corev1.Service{}
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	if !Ours(svc) {
		t.Error("a Service without class is ours")
	}
	svc.Spec.LoadBalancerClass = &class
	if Ours(svc) {
		t.Error("a Service of another class is not")
	}
	svc.Spec.LoadBalancerIP = "192.0.2.10"
	svc.Annotations = map[string]string{AnnotationAddresses: "192.0.2.11, 2001:db8::9"}
	r, err := RequestOf(svc)
	if err != nil || len(r.Want) != 2 || r.Want[0] != netip.MustParseAddr("192.0.2.11") {
		t.Errorf("%+v, %v", r, err)
	}
	for _, text := range []string{"host.example", "192.0.2.1,192.0.2.2"} {
		svc.Annotations[AnnotationAddresses] = text
		if _, err := RequestOf(svc); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
