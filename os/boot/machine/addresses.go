package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/settings"
)

// addresses are the interfaces of the machine: the uplink, by the boot configuration or by
// the repository, and others. They are a part of the settings.
type addresses struct {
	// boot is what the boot configuration says.
	boot v1alpha1.BootNetwork
	// make returns what brings up an uplink.
	make func(want v1alpha1.BootNetwork, trial bool) *network

	mu sync.Mutex
	// now is what the interfaces are like, and uplink what came of it.
	now    layout
	uplink *Uplink
	// release ends the renewal of the uplink's lease.
	release context.CancelFunc
	// last is the uplink before the one on trial.
	last *before
	// leases end the renewal for other interfaces; mtus are those of before.
	leases map[string]context.CancelFunc
	mtus   map[string]int
}

// layout is what interfaces are to be like.
type layout struct {
	uplink v1alpha1.BootNetwork
	// own is what the repository says of the uplink; nil where the boot configuration does.
	own    *v1alpha1.InterfaceSpec
	others []v1alpha1.InterfaceSpec
}

// layoutOf joins boot configuration and settings.
func layoutOf(boot v1alpha1.BootNetwork, s *settings.Settings) layout {
	l := layout{uplink: boot}
	for _, n := range s.Interfaces {
		if !n.Uplink {
			l.others = append(l.others, n)
			continue
		}
		l.own = &n
		l.uplink.Interface, l.uplink.VLAN, l.uplink.Address, l.uplink.Gateway = n.Name, n.VLAN, "", n.Gateway
		if len(n.Addresses) > 0 {
			l.uplink.Address = n.Addresses[0]
		}
	}
	return l
}

// Name is what errors call it.
func (*addresses) Name() string { return "interfaces" }

// begin brings up the network of a machine that starts. The uplink has to come up; what
// others lack is returned.
func (a *addresses) begin(ctx context.Context, s *settings.Settings) (problem, err error) {
	l := layoutOf(a.boot, s)
	n := a.make(l.uplink, false)
	u, err := n.up(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now.uplink = l.uplink
	a.take(ctx, n, u)
	return a.rest(ctx, l), nil
}

// take makes an uplink the machine's.
func (a *addresses) take(ctx context.Context, n *network, u *Uplink) {
	if a.release != nil {
		a.release()
	}
	// The lease outlives the trial that it was got in.
	ctx, a.release = context.WithCancel(context.WithoutCancel(ctx))
	a.uplink = u
	go n.keep(ctx, u)
}

// Apply brings the interfaces from where they are to what is wanted.
func (a *addresses) Apply(ctx context.Context, _, to *settings.Settings) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := layoutOf(a.boot, to)
	if !reflect.DeepEqual(l.uplink, a.now.uplink) {
		if err := a.move(ctx, l.uplink); err != nil {
			return err
		}
	}
	return a.rest(ctx, l)
}

// settled says that the trial is over: the uplink of before is history.
func (a *addresses) settled() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = nil
}

// current is the uplink.
func (a *addresses) current() *Uplink {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uplink
}

// before is an uplink that the machine had, and what it was made from.
type before struct {
	want   v1alpha1.BootNetwork
	uplink *Uplink
}

// move changes the uplink. The old one is remembered until the move is over: going back to
// it asks nobody.
func (a *addresses) move(ctx context.Context, want v1alpha1.BootNetwork) error {
	n := a.make(want, true)
	old := a.uplink
	if a.last != nil && reflect.DeepEqual(a.last.want, want) {
		return a.goBack(ctx, n)
	}
	a.last = &before{a.now.uplink, old}
	u, err := n.up(ctx)
	// From here on the interfaces are neither here nor there, whatever the error.
	a.now.uplink = want
	if err != nil {
		return err
	}
	if err := leave(old, u); err != nil {
		return err
	}
	a.take(ctx, n, u)
	return nil
}

func (a *addresses) goBack(ctx context.Context, n *network) error {
	failed, u := a.uplink, a.last.uplink
	link, err := netlink.LinkByName(u.Interface)
	if err != nil {
		return fmt.Errorf("interface %s, which had %s, is gone: %w", u.Interface, u.Address, err)
	}
	a.now.uplink, a.last = a.last.want, nil
	if failed != u {
		err = leave(failed, u)
	}
	a.take(ctx, n, u)
	return errors.Join(err, netlink.LinkSetUp(link), u.configure(link))
}

// leave takes the address of an uplink away that is none any longer.
func leave(old, now *Uplink) error {
	if old == nil || old.Interface == now.Interface {
		return nil // configure has seen to it
	}
	link, err := netlink.LinkByName(old.Interface)
	if err != nil {
		return nil //nolint:nilerr // it is gone, and its address with it
	}
	return flush(link)
}

// rest brings all but the uplink's first address about. The caller holds mu.
func (a *addresses) rest(ctx context.Context, l layout) error {
	var errs []error
	wanted := map[string]bool{a.uplink.Interface: true}
	if a.now.own != nil {
		errs = append(errs, a.retract(a.now.own, l.own, a.uplink.Interface))
	}
	if l.own != nil {
		errs = append(errs, a.further(l.own, a.uplink.Interface))
	}
	for i := range l.others {
		n := &l.others[i]
		name, err := a.other(ctx, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Name, err))
		}
		wanted[name] = true
	}
	for _, n := range a.now.others {
		link, err := resolve(&n)
		if err != nil {
			continue // it is gone
		}
		name := link.Attrs().Name
		i := slices.IndexFunc(l.others, func(o v1alpha1.InterfaceSpec) bool { return o.Name == n.Name && o.VLAN == n.VLAN })
		switch {
		case i >= 0:
			errs = append(errs, a.retract(&n, &l.others[i], name))
		case !wanted[name]:
			a.endLease(name)
			errs = append(errs, a.retract(&n, nil, name), drop(link))
		}
	}
	a.now.own, a.now.others = l.own, l.others
	return errors.Join(errs...)
}

// other brings up an interface that is not the uplink, and returns its name.
func (a *addresses) other(ctx context.Context, n *v1alpha1.InterfaceSpec) (string, error) {
	parent, err := findLink(n.Name)
	if err != nil {
		return "", err
	}
	if err := netlink.LinkSetUp(parent); err != nil {
		return "", fmt.Errorf("bring it up: %w", err)
	}
	link := parent
	if n.VLAN > 0 {
		if link, err = tagged(parent, n.VLAN); err != nil {
			return "", err
		}
	}
	name := link.Attrs().Name
	if name == a.uplink.Interface {
		return name, errors.New("is the uplink: say uplink: true")
	}
	if n.DHCP {
		return name, errors.Join(a.lease(ctx, link), a.further(n, name))
	}
	a.endLease(name)
	return name, errors.Join(onlyAddresses(link, n.Addresses), a.further(n, name))
}

func (a *addresses) endLease(name string) {
	if end := a.leases[name]; end != nil {
		end()
		delete(a.leases, name)
	}
}

// lease gets an address for an interface that is not the uplink, and has it renewed. One
// that has a lease keeps it.
func (a *addresses) lease(ctx context.Context, link netlink.Link) error {
	name := link.Attrs().Name
	if a.leases[name] != nil {
		return nil
	}
	u, err := ask(ctx, link, nil)
	if err != nil {
		return err
	}
	if err := onlyAddresses(link, []string{fmt.Sprintf("%s/%d", u.Address, u.Bits)}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if a.leases == nil {
		a.leases = map[string]context.CancelFunc{}
	}
	a.leases[name] = cancel
	go a.make(v1alpha1.BootNetwork{}, true).keep(ctx, u)
	return nil
}

// further gives an interface its MTU, its addresses but those it has, and its routes.
func (a *addresses) further(n *v1alpha1.InterfaceSpec, name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	var errs []error
	if had := link.Attrs().MTU; n.MTU > 0 && had != n.MTU {
		if a.mtus == nil {
			a.mtus = map[string]int{}
		}
		if _, known := a.mtus[name]; !known {
			a.mtus[name] = had
		}
		if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
			errs = append(errs, fmt.Errorf("set the MTU %d: %w", n.MTU, err))
		}
	}
	for _, text := range n.Addresses {
		if err := netlink.AddrReplace(link, address(text)); err != nil {
			errs = append(errs, fmt.Errorf("add %s: %w", text, err))
		}
	}
	for _, r := range n.Routes {
		if err := netlink.RouteReplace(route(link, r)); err != nil {
			errs = append(errs, fmt.Errorf("route to %s through %s: %w", r.To, r.Via, err))
		}
	}
	return errors.Join(errs...)
}

// retract takes back what an interface had and is not to have any longer. Its first
// address, where it is the uplink, is none of this.
func (a *addresses) retract(old, now *v1alpha1.InterfaceSpec, name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil //nolint:nilerr // it is gone
	}
	if now == nil {
		now = &v1alpha1.InterfaceSpec{}
	}
	var errs []error
	for _, r := range old.Routes {
		if slices.Contains(now.Routes, r) {
			continue
		}
		if err := netlink.RouteDel(route(link, r)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("take the route to %s away: %w", r.To, err))
		}
	}
	for _, text := range old.Addresses {
		if slices.Contains(now.Addresses, text) || name == a.uplink.Interface && address(text).IP.Equal(net.ParseIP(a.uplink.Address)) {
			continue
		}
		if err := netlink.AddrDel(link, address(text)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("take %s away: %w", text, err))
		}
	}
	if mtu, known := a.mtus[name]; known && now.MTU == 0 {
		delete(a.mtus, name)
		errs = append(errs, netlink.LinkSetMTU(link, mtu))
	}
	return errors.Join(errs...)
}

func route(link netlink.Link, r v1alpha1.RouteSpec) *netlink.Route {
	_, to, _ := net.ParseCIDR(r.To) // checked when it was decoded
	return &netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Gw: net.ParseIP(r.Via)}
}

// onlyAddresses gives an interface these addresses and takes all others from it. Routes go
// with them.
func onlyAddresses(link netlink.Link, wanted []string) error {
	old, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, have := range old {
		if have.Scope != unix.RT_SCOPE_UNIVERSE || slices.ContainsFunc(wanted, func(w string) bool { return have.Equal(*address(w)) }) {
			continue
		}
		if have.Flags&unix.IFA_F_PERMANENT == 0 && have.IP.To4() == nil {
			continue // the router said so
		}
		if err := netlink.AddrDel(link, &have); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take %s away: %w", have.IPNet, err)
		}
	}
	for _, w := range wanted {
		if err := netlink.AddrReplace(link, address(w)); err != nil {
			return fmt.Errorf("add %s: %w", w, err)
		}
	}
	return nil
}

// address is one of a checked configuration.
func address(text string) *netlink.Addr {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return &netlink.Addr{IPNet: &net.IPNet{}}
	}
	ip := p.Addr().AsSlice()
	return &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(p.Bits(), len(ip)*8)}}
}

func flush(link netlink.Link) error { return onlyAddresses(link, nil) }

// drop takes an interface out of use. One that bothy made goes.
func drop(link netlink.Link) error {
	if _, made := link.(*netlink.Vlan); made {
		return netlink.LinkDel(link)
	}
	return errors.Join(flush(link), netlink.LinkSetDown(link))
}

// resolve finds the interface of an entry.
func resolve(n *v1alpha1.InterfaceSpec) (netlink.Link, error) {
	link, err := findLink(n.Name)
	if err != nil || n.VLAN == 0 {
		return link, err
	}
	return netlink.LinkByName(link.Attrs().Name + "." + strconv.Itoa(n.VLAN))
}

// findLink finds an interface by name or hardware address.
func findLink(name string) (netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var known []string
	for _, link := range all {
		a := link.Attrs()
		if _, made := link.(*netlink.Vlan); a.Name == name || !made && a.HardwareAddr.String() == name {
			return link, nil
		}
		if a.Flags&net.FlagLoopback == 0 {
			known = append(known, a.Name)
		}
	}
	return nil, fmt.Errorf("there is no such network interface; this machine has %v", known)
}
