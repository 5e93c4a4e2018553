package v1alpha1

import (
	"net/netip"
	"time"
)

// NewCluster returns the single-node cluster of a site without cluster.yaml.
func NewCluster(name string) *Cluster {
	c := &Cluster{TypeMeta: TypeMeta{APIVersion: GroupVersion, Kind: "Cluster"}, Metadata: ObjectMeta{Name: name}}
	c.Default()
	return c
}

// NewMachine returns the settings of a node that has no file of its own.
func NewMachine(name string) *Machine {
	m := &Machine{TypeMeta: TypeMeta{APIVersion: GroupVersion, Kind: "Machine"}, Metadata: ObjectMeta{Name: name}}
	m.Default()
	return m
}

// Default fills in every setting that was left out.
func (c *Cluster) Default() {
	s := &c.Spec
	s.Network.defaultRanges()
	setDefault(&s.Network.NodePortRange, "30000-32767")
	setDefault(&s.Network.Encapsulation, EncapsulationCrossSubnet)
	setDefault(&s.Network.DNS.Domain, "cluster.local")
	setDefault(&s.Network.DNS.Address, nthAddress(s.Network.ServiceCIDRs[0], dnsHost))
	setDefault(&s.ControlPlane.Port, 6443)
	setDefault(&s.ControlPlane.JoinPort, defaultJoinPort)
	setDefault(&s.ControlPlane.EventTTL.Duration, time.Hour)
	setDefault(&s.ControlPlane.Etcd.QuotaMiB, 2048)
	setDefault(&s.ControlPlane.Etcd.CompactionInterval.Duration, 5*time.Minute)
	setDefault(&s.Security.PodSecurity.Enforce, "baseline")
	setDefault(&s.Security.PodSecurity.Warn, "restricted")
	setDefault(&s.Security.PodSecurity.Audit, "restricted")
	setDefault(&s.Security.Encryption.RotateEvery.Duration, 90*24*time.Hour)
	setDefault(&s.Security.Audit.MaxSizeMiB, 20)
	setDefault(&s.Security.Audit.MaxBackups, 5)
	setDefault(&s.Node.MaxPods, 110)
	setDefault(&s.Storage.Local.ClassName, "local")
	setDefault(&s.Storage.Local.ReclaimPolicy, "Delete")
	s.GitOps.setDefaults()
	setDefault(&s.System.RevertAfter.Duration, defaultRevertAfter)
	s.OS.setDefaults()
}

// defaultJoinPort is beside the API server's.
const defaultJoinPort = 6444

// Default fills in every setting that was left out.
func (m *Machine) Default() { setDefault(&m.Spec.Role, RoleControlPlane) }

// Default fills in every setting that was left out.
func (r *TrustRoot) Default() {
	for i := range r.Rules {
		setDefault(&r.Rules[i].Threshold, 1)
	}
}

// Default fills in every setting that was left out.
func (b *BootConfig) Default() {
	setDefault(&b.Repository.Branch, "main")
	setDefault(&b.Repository.Interval.Duration, 30*time.Second)
	if b.Trust.Root != nil {
		b.Trust.Root.Default()
	}
	if b.Endpoint != nil {
		b.Endpoint.Default()
	}
}

// The default ranges. Those of IPv6 are unique local addresses, whose 40 random bits
// spell "bothy"; sites whose pods are to reach each other choose their own.
const (
	defaultPods4, defaultServices4 = "10.244.0.0/16", "10.96.0.0/16"
	defaultPods6, defaultServices6 = "fd62:6f74:6879:f400::/56", "fd62:6f74:6879:6000::/112"
)

// defaultRanges gives a cluster both families unless it says which ones it wants: by one of the lists
// for both.
func (n *NetworkSpec) defaultRanges() {
	switch {
	case len(n.PodCIDRs) == 0 && len(n.ServiceCIDRs) == 0:
		n.PodCIDRs, n.ServiceCIDRs = []string{defaultPods4, defaultPods6}, []string{defaultServices4, defaultServices6}
	case len(n.PodCIDRs) == 0:
		n.PodCIDRs = likewise(n.ServiceCIDRs, defaultPods4, defaultPods6)
	case len(n.ServiceCIDRs) == 0:
		n.ServiceCIDRs = likewise(n.PodCIDRs, defaultServices4, defaultServices6)
	}
}

// likewise returns a range for each of the given ones, of the same family.
func likewise(cidrs []string, four, six string) []string {
	var out []string
	for _, c := range cidrs {
		if p, err := netip.ParsePrefix(c); err == nil && p.Addr().Is6() {
			out = append(out, six)
		} else {
			out = append(out, four)
		}
	}
	return out
}

// dnsHost is which address of a service range is that of DNS.
const dnsHost = 10

// DNSAddresses are the ClusterIPs of DNS, one for each service range in their order. The spec must be
// defaulted.
func (n *NetworkSpec) DNSAddresses() []string {
	out := []string{n.DNS.Address}
	for _, cidr := range n.ServiceCIDRs[1:] {
		out = append(out, nthAddress(cidr, dnsHost))
	}
	return out
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// nthAddress returns the n-th address of a range, or "" if the range cannot be
// parsed: validation says so afterwards.
func nthAddress(cidr string, n int) string {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return ""
	}
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a.String()
}
