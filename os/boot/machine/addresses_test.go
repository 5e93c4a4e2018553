package machine

import (
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/settings"
)

// inNamespace gives the test a network of its own with the interfaces eth0 and eth1. The
// thread ends with the test.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: a network namespace cannot be made")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("a network namespace cannot be made: %v", err)
	}
	for _, name := range []string{"eth0", "eth1"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer-" + name}); err != nil {
			t.Fatal(err)
		}
		if err := setUp("peer-" + name); err != nil {
			t.Fatal(err)
		}
	}
}

// begun is a machine whose boot configuration gives eth0 192.0.2.10.
func begun(t *testing.T) *addresses {
	t.Helper()
	inNamespace(t)
	boot := v1alpha1.BootNetwork{Interface: "eth0", Address: "192.0.2.10/24", Gateway: "192.0.2.1"}
	a := &addresses{boot: boot, make: func(want v1alpha1.BootNetwork, trial bool) *network {
		return &network{log: slog.New(slog.DiscardHandler), want: want, trial: trial, screen: newScreen(nil)}
	}}
	problem, err := a.begin(t.Context(), &settings.Settings{})
	if problem != nil || err != nil {
		t.Fatal(problem, err)
	}
	expect(t, "eth0 192.0.2.10/24", "default via 192.0.2.1 dev eth0")
	return a
}

// tag is a VLAN and the ending of the interface that it has, where the kernel knows VLANs.
func tag(t *testing.T, vlan int) (int, string) {
	t.Helper()
	link, err := netlink.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	made, err := tagged(link, 4000)
	if err != nil {
		t.Logf("without VLANs: %v", err)
		return 0, ""
	}
	if err := netlink.LinkDel(made); err != nil {
		t.Fatal(err)
	}
	return vlan, "." + strconv.Itoa(vlan)
}

// network as ip(8) would list it, without what the kernel makes by itself.
func listed(t *testing.T) []string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		if l.Attrs().MTU != 1500 && l.Attrs().Name != "lo" {
			out = append(out, l.Attrs().Name+" has another MTU")
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if l.Attrs().Name != "lo" {
				out = append(out, l.Attrs().Name+" "+a.IPNet.String())
			}
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Gw == nil {
			continue
		}
		to := "default"
		if r.Dst != nil {
			if bits, _ := r.Dst.Mask.Size(); bits > 0 {
				to = r.Dst.String()
			}
		}
		out = append(out, to+" via "+r.Gw.String()+" dev "+names[r.LinkIndex])
	}
	slices.Sort(out)
	return out
}

func expect(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := listed(t); !slices.Equal(got, want) {
		t.Fatalf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func set(n ...v1alpha1.InterfaceSpec) *settings.Settings { return &settings.Settings{Interfaces: n} }

func apply(t *testing.T, a *addresses, s *settings.Settings) {
	t.Helper()
	if err := a.Apply(t.Context(), nil, s); err != nil {
		t.Fatal(err)
	}
}

func TestTheUplinkChangesItsAddressAndGoesBack(t *testing.T) {
	a := begun(t)
	apply(t, a, set(v1alpha1.InterfaceSpec{
		Name: "eth0", Uplink: true, Addresses: []string{"198.51.100.5/24", "203.0.113.5/24"}, Gateway: "198.51.100.1", MTU: 1400,
		Routes: []v1alpha1.RouteSpec{{To: "10.9.0.0/16", Via: "203.0.113.1"}},
	}))
	expect(t, "eth0 198.51.100.5/24", "eth0 203.0.113.5/24", "default via 198.51.100.1 dev eth0", "10.9.0.0/16 via 203.0.113.1 dev eth0", "eth0 has another MTU")
	if u := a.current(); u.Address != "198.51.100.5" {
		t.Errorf("%+v", u)
	}
	apply(t, a, set())
	expect(t, "eth0 192.0.2.10/24", "default via 192.0.2.1 dev eth0")
	if u := a.current(); u.Address != "192.0.2.10" {
		t.Errorf("%+v", u)
	}
}

func TestTheUplinkMovesToAnotherInterfaceAndBack(t *testing.T) {
	a := begun(t)
	vlan, ending := tag(t, 12)
	other := set(v1alpha1.InterfaceSpec{Name: "eth1", VLAN: vlan, Uplink: true, Addresses: []string{"198.51.100.5/24"}, Gateway: "198.51.100.1"})
	apply(t, a, other)
	expect(t, "eth1"+ending+" 198.51.100.5/24", "default via 198.51.100.1 dev eth1"+ending)
	apply(t, a, set())
	expect(t, "eth0 192.0.2.10/24", "default via 192.0.2.1 dev eth0")
	// Once it has proved itself, the one of before is made anew like any other.
	apply(t, a, other)
	a.settled()
	apply(t, a, set())
	expect(t, "eth0 192.0.2.10/24", "default via 192.0.2.1 dev eth0")
}

func TestAnUplinkWithoutAGatewayHasNoWayOut(t *testing.T) {
	a := begun(t)
	apply(t, a, set(v1alpha1.InterfaceSpec{Name: "eth0", Uplink: true, Addresses: []string{"192.0.2.10/24"}}))
	expect(t, "eth0 192.0.2.10/24")
	apply(t, a, set())
	expect(t, "eth0 192.0.2.10/24", "default via 192.0.2.1 dev eth0")
}

func TestAnUplinkThatIsNotThereIsUndone(t *testing.T) {
	a := begun(t)
	err := a.Apply(t.Context(), nil, set(v1alpha1.InterfaceSpec{Name: "eth7", Uplink: true, Addresses: []string{"198.51.100.5/24"}}))
	if err == nil || !strings.Contains(err.Error(), "eth7: there is no such network interface; this machine has [") {
		t.Fatalf("%v", err)
	}
	apply(t, a, set())
	expect(t, "eth0 192.0.2.10/24", "default via 192.0.2.1 dev eth0")
}

func TestFurtherInterfacesComeAndGo(t *testing.T) {
	a := begun(t)
	link, err := netlink.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	mac := link.Attrs().HardwareAddr.String()
	one := v1alpha1.InterfaceSpec{Name: mac, Addresses: []string{"198.51.100.5/24"}, Routes: []v1alpha1.RouteSpec{{To: "10.9.0.0/16", Via: "198.51.100.1"}}}
	base := []string{"eth0 192.0.2.10/24", "default via 192.0.2.1 dev eth0"}
	if vlan, ending := tag(t, 7); vlan > 0 {
		two := v1alpha1.InterfaceSpec{Name: "eth1", VLAN: vlan, Addresses: []string{"203.0.113.5/24"}}
		apply(t, a, set(one, two))
		expect(t, append(base, "eth1 198.51.100.5/24", "10.9.0.0/16 via 198.51.100.1 dev eth1", "eth1"+ending+" 203.0.113.5/24")...)
	}
	apply(t, a, set(one))
	expect(t, append(base, "eth1 198.51.100.5/24", "10.9.0.0/16 via 198.51.100.1 dev eth1")...)
	one.Addresses, one.Routes = []string{"198.51.100.6/24"}, nil
	apply(t, a, set(one))
	expect(t, append(base, "eth1 198.51.100.6/24")...)
	if _, err := netlink.LinkByName("eth1.7"); err == nil {
		t.Error("the interface of a VLAN is still there")
	}
	apply(t, a, set())
	expect(t, base...)
	if link, err = netlink.LinkByName("eth1"); err != nil || link.Attrs().Flags&net.FlagUp != 0 {
		t.Errorf("an interface that nobody wants is up: %v", err)
	}
	if err := a.Apply(t.Context(), nil, set(v1alpha1.InterfaceSpec{Name: "eth0", Addresses: []string{"198.51.100.5/24"}})); err == nil || !strings.Contains(err.Error(), "say uplink: true") {
		t.Errorf("%v", err)
	}
}
