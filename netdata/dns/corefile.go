package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Config is what the server needs.
type Config struct {
	// Addrs are the cluster DNS addresses, one of each family.
	Addrs []netip.Addr
	// Domain is the cluster domain, such as cluster.local.
	Domain string
	// Upstreams answer for all other names; without any they are refused.
	Upstreams []netip.AddrPort
	// Kubeconfig is a path; certificates in it may be files that are replaced.
	Kubeconfig string
}

// ttl of cluster names, in seconds: how long a pod may hold on to an address
// that a headless Service has lost.
const ttl = 5

// reverseZones: PTR questions for other addresses go to the upstreams.
const reverseZones = "in-addr.arpa ip6.arpa"

// corefile is the configuration with the API (full) or while it has never
// answered.
func (c Config) corefile(full bool) string {
	var b strings.Builder
	upstreams := c.usableUpstreams()
	bind := c.bind()
	if full {
		fmt.Fprintf(&b, ".:53 {\n\tbind %s\n\tbothy_observe\n\terrors\n", bind)
		fmt.Fprintf(&b, "\tkubernetes %s %s {\n\t\tkubeconfig %s\n\t\tpods insecure\n\t\tttl %d\n\t\tfallthrough %s\n\t\tstartup_timeout 1s\n\t}\n",
			c.Domain, reverseZones, c.Kubeconfig, ttl, reverseZones)
		c.forward(&b, upstreams)
		b.WriteString("\tloadbalance\n}\n")
		return b.String()
	}
	// A zone without a plugin that answers is refused.
	fmt.Fprintf(&b, "%s:53 {\n\tbind %s\n\tbothy_observe\n\terrors\n}\n", c.Domain, bind)
	fmt.Fprintf(&b, ".:53 {\n\tbind %s\n\tbothy_observe\n\terrors\n", bind)
	c.forward(&b, upstreams)
	b.WriteString("}\n")
	return b.String()
}

func (c Config) bind() string {
	var out []string
	for _, a := range c.Addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func (c Config) forward(b *strings.Builder, upstreams []string) {
	if len(upstreams) == 0 {
		return
	}
	// Answers outlive a dead uplink for an hour: an old address beats none.
	fmt.Fprintf(b, "\tcache 30 {\n\t\tdisable success %[1]s\n\t\tdisable denial %[1]s\n\t\tserve_stale 1h\n\t}\n", c.Domain)
	fmt.Fprintf(b, "\tforward . %s {\n\t\tmax_concurrent 1000\n\t}\n", strings.Join(upstreams, " "))
}

// usableUpstreams leaves out this server itself, in which a query would circle.
func (c Config) usableUpstreams() []string {
	var out []string
	for _, u := range c.Upstreams {
		if !slices.Contains(c.Addrs, u.Addr().Unmap()) {
			out = append(out, u.String())
		}
	}
	return out
}
