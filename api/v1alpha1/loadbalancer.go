package v1alpha1

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// LoadBalancerSpec gives Services of type LoadBalancer their addresses.
type LoadBalancerSpec struct {
	// Pools are asked in their order. Without any, such Services get no address.
	Pools []AddressPool `json:"pools,omitempty"`
}

// AddressPool is a set of addresses on the node's own link, that nobody else uses. One node
// at a time answers for each that a Service has, to ARP and neighbour discovery.
type AddressPool struct {
	// Name is what the annotation bothy.dev/load-balancer-pool of a Service calls the pool.
	Name string `json:"name"`
	// Addresses are single addresses, ranges such as "192.168.1.200-192.168.1.220", or prefixes.
	Addresses []string `json:"addresses"`
	// AutoAssign says whether Services that do not name the pool get addresses from it.
	// Default true.
	AutoAssign *bool `json:"autoAssign,omitempty"`
	// Namespaces limit the pool to Services in them.
	Namespaces []string `json:"namespaces,omitempty"`
	// ServiceLabels limit the pool to Services that have all of these labels.
	ServiceLabels map[string]string `json:"serviceLabels,omitempty"`
}

// AddressRange is inclusive at both ends.
type AddressRange struct {
	First, Last netip.Addr
}

// ParseAddressRange reads an address, "first-last" or a prefix.
func ParseAddressRange(text string) (AddressRange, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		if p != p.Masked() {
			return AddressRange{}, fmt.Errorf("%q has address bits beyond its length; write %s", text, p.Masked())
		}
		return AddressRange{p.Addr(), lastOf(p)}, nil
	}
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, err := netip.ParseAddr(strings.TrimSpace(from))
	if err != nil {
		return AddressRange{}, fmt.Errorf("%q is not an address, a range or a prefix", text)
	}
	last, err := netip.ParseAddr(strings.TrimSpace(to))
	if err != nil {
		return AddressRange{}, fmt.Errorf("%q is not an address, a range or a prefix", text)
	}
	if first.Is4() != last.Is4() || last.Less(first) || first.Zone() != "" || last.Zone() != "" {
		return AddressRange{}, fmt.Errorf("%q does not go from a lower to a higher address", text)
	}
	return AddressRange{first, last}, nil
}

// Contains reports whether the address is in the range.
func (r AddressRange) Contains(a netip.Addr) bool {
	return a.Is4() == r.First.Is4() && !a.Less(r.First) && !r.Last.Less(a)
}

// Overlaps reports whether the ranges share an address.
func (r AddressRange) Overlaps(o AddressRange) bool {
	return r.Contains(o.First) || o.Contains(r.First)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// taken is a range and who has it.
type taken struct {
	AddressRange
	by string
}

func (l *LoadBalancerSpec) validate(p *problems, pods, services []netip.Prefix) {
	var used []taken
	for _, r := range pods {
		used = append(used, taken{AddressRange{r.Masked().Addr(), lastOf(r.Masked())}, "the pod range " + r.String()})
	}
	for _, r := range services {
		used = append(used, taken{AddressRange{r.Masked().Addr(), lastOf(r.Masked())}, "the service range " + r.String()})
	}
	names := map[string]bool{}
	for i, pool := range l.Pools {
		at := fmt.Sprintf("spec.network.loadBalancer.pools[%d]", i)
		if !dnsLabel.MatchString(pool.Name) {
			p.add(at+".name", "use lower-case letters, digits and dashes", "%q is not a valid name", pool.Name)
		}
		if names[pool.Name] {
			p.add(at+".name", "give each pool a name of its own", "%q is the name of another pool", pool.Name)
		}
		names[pool.Name] = true
		if len(pool.Addresses) == 0 {
			p.add(at+".addresses", `write ranges such as "192.168.1.200-192.168.1.220"`, "is empty")
		}
		for j, text := range pool.Addresses {
			used = validateRange(p, fmt.Sprintf("%s.addresses[%d]", at, j), text, pool.Name, used)
		}
		for j, n := range pool.Namespaces {
			if !dnsLabel.MatchString(n) {
				p.add(fmt.Sprintf("%s.namespaces[%d]", at, j), "", "%q is not the name of a namespace", n)
			}
		}
	}
}

func validateRange(p *problems, at, text, pool string, used []taken) []taken {
	r, err := ParseAddressRange(text)
	if err != nil {
		p.add(at, `write an address, a range such as "192.168.1.200-192.168.1.220", or a prefix`, "%s", err)
		return used
	}
	if slices.ContainsFunc([]netip.Addr{r.First, r.Last}, func(a netip.Addr) bool {
		return a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Is4In6()
	}) {
		p.add(at, "use unicast addresses of the nodes' own network", "%q has addresses that no Service can have", text)
		return used
	}
	for _, u := range used {
		if r.Overlaps(u.AddressRange) {
			p.add(at, "choose addresses that nothing else uses", "%s overlaps %s", text, u.by)
		}
	}
	return append(used, taken{r, fmt.Sprintf("%s of pool %q", text, pool)})
}

// Prefixes are the fewest prefixes that together are the range.
func (r AddressRange) Prefixes() []netip.Prefix {
	var out []netip.Prefix
	for at := r.First; ; {
		p := netip.PrefixFrom(at, at.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(at, p.Bits()-1)
			if wider.Masked().Addr() != at || r.Last.Less(lastOf(wider)) {
				break
			}
			p = wider
		}
		out = append(out, p)
		last := lastOf(p)
		if !last.Less(r.Last) {
			return out
		}
		at = last.Next()
	}
}
