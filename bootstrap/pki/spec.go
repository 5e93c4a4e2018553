package pki

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/bothy-os/bothy/bootstrap/paths"
)

// The identities every control plane has. Their names cannot be requested.
const (
	Admin             = "admin"
	ControllerManager = "controller-manager"
	Scheduler         = "scheduler"
	Kubelet           = "kubelet"
)

// AdminGroup holds the members of the admin identity. It gets its rights by a
// ClusterRoleBinding and not from system:masters, so that they can be taken
// away again.
const AdminGroup = "bothy:admins"

// KubeletClientUser is how the API server introduces itself to kubelets.
const KubeletClientUser = "bothy:apiserver-kubelet-client"

// An Identity is a user of the API with a certificate and a kubeconfig.
type Identity struct {
	// Name names the files: <Name>.pem and <Name>.kubeconfig.
	Name string
	// User and Groups are what the API server sees.
	User   string
	Groups []string
}

// A ServingCertificate is for a server beside the API server, such as an
// aggregated API. Clients verify it with the cluster CA.
type ServingCertificate struct {
	// Name names the file <Name>.pem.
	Name string
	// DNSNames and IPs are what it is valid for.
	DNSNames []string
	IPs      []netip.Addr
}

// Spec says which certificates a node has.
type Spec struct {
	Paths paths.Paths
	// Server is the URL that kubeconfigs point to.
	Server   string
	NodeName string
	NodeIP   netip.Addr
	// SecondIP is the node's address of the other family; not valid if there is none.
	SecondIP netip.Addr
	// ServiceIPs are the addresses of the kubernetes Service.
	ServiceIPs []netip.Addr
	// ClusterDomain is the DNS domain of Services.
	ClusterDomain string
	// ExtraSANs are further names and addresses of the API server.
	ExtraSANs  []string
	Identities []Identity
	Serving    []ServingCertificate
}

var fileName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate checks the requested identities and serving certificates.
func (s *Spec) Validate() error {
	taken := map[string]bool{}
	for _, l := range s.builtin() {
		taken[l.name] = true
	}
	claim := func(kind, name string) error {
		if !fileName.MatchString(name) {
			return fmt.Errorf("%s %q: a name is made of lower-case letters, digits and dashes", kind, name)
		}
		if taken[name] {
			return fmt.Errorf("%s %q: the name is already in use", kind, name)
		}
		taken[name] = true
		return nil
	}
	for _, id := range s.Identities {
		if err := claim("identity", id.Name); err != nil {
			return err
		}
		if id.User == "" {
			return fmt.Errorf("identity %q: has no user", id.Name)
		}
	}
	for _, c := range s.Serving {
		if err := claim("serving certificate", c.Name); err != nil {
			return err
		}
		if len(c.DNSNames)+len(c.IPs) == 0 {
			return fmt.Errorf("serving certificate %q: has neither names nor addresses", c.Name)
		}
	}
	return nil
}

func (s *Spec) leaves() []leafSpec {
	out := s.builtin()
	for _, id := range s.Identities {
		out = append(out, id.leaf())
	}
	for _, c := range s.Serving {
		out = append(out, leafSpec{name: c.Name, commonName: c.Name, usage: serving, dns: c.DNSNames, ips: toIPs(c.IPs)})
	}
	return out
}

func (s *Spec) builtin() []leafSpec {
	apiserver := leafSpec{name: "apiserver", commonName: "kube-apiserver", usage: serving}
	apiserver.dns, apiserver.ips = s.apiServerNames()
	out := []leafSpec{
		apiserver,
		{name: "apiserver-kubelet-client", commonName: KubeletClientUser, usage: client},
		{name: "front-proxy-client", commonName: paths.FrontProxyName, usage: client, frontProxy: true},
		{
			name: KubeletServing, commonName: "system:node:" + s.NodeName, groups: []string{"system:nodes"},
			usage: serving, dns: []string{s.NodeName}, ips: toIPs(s.nodeIPs()),
		},
	}
	for _, id := range s.builtinIdentities() {
		out = append(out, id.leaf())
	}
	return out
}

func (s *Spec) builtinIdentities() []Identity {
	return []Identity{
		{Name: Admin, User: "bothy:admin", Groups: []string{AdminGroup}},
		{Name: ControllerManager, User: "system:kube-controller-manager"},
		{Name: Scheduler, User: "system:kube-scheduler"},
		{Name: Kubelet, User: "system:node:" + s.NodeName, Groups: []string{"system:nodes"}},
	}
}

func (s *Spec) identities() []Identity { return append(s.builtinIdentities(), s.Identities...) }

func (id Identity) leaf() leafSpec {
	return leafSpec{name: id.Name, commonName: id.User, groups: id.Groups, usage: client}
}

func (s *Spec) apiServerNames() (dns []string, ips []net.IP) {
	svc := "kubernetes.default.svc"
	dns = []string{"localhost", "kubernetes", "kubernetes.default", svc, svc + "." + s.ClusterDomain}
	add := func(name string) {
		if !slices.Contains(dns, name) {
			dns = append(dns, name)
		}
	}
	addrs := append(s.nodeIPs(), s.ServiceIPs...)
	addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	add(s.NodeName)
	for _, san := range s.ExtraSANs {
		if ip, err := netip.ParseAddr(san); err == nil {
			addrs = append(addrs, ip)
		} else {
			add(san)
		}
	}
	return dns, toIPs(addrs)
}

func (s *Spec) nodeIPs() []netip.Addr {
	if !s.SecondIP.IsValid() {
		return []netip.Addr{s.NodeIP}
	}
	return []netip.Addr{s.NodeIP, s.SecondIP}
}

func toIPs(addrs []netip.Addr) []net.IP {
	var out []net.IP
	for _, a := range addrs {
		out = append(out, net.IP(a.Unmap().AsSlice()))
	}
	return out
}
