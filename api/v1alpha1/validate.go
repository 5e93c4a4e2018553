package v1alpha1

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	signerName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$`)
)

type problems []*FieldError

func (p *problems) add(field, remedy, format string, args ...any) {
	*p = append(*p, &FieldError{Field: field, Problem: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Validate returns what is wrong with a defaulted Cluster.
func (c *Cluster) Validate() []*FieldError {
	var p problems
	if c.Metadata.Name != "" && !dnsSubdomain.MatchString(c.Metadata.Name) {
		p.add("metadata.name", "use lower-case letters, digits and dashes", "%q is not a valid name", c.Metadata.Name)
	}
	c.Spec.Network.validate(&p)
	c.Spec.ControlPlane.validate(&p)
	c.validatePorts(&p)
	c.Spec.Security.validate(&p)
	if n := c.Spec.Node.MaxPods; n < 1 || n > 500 {
		p.add("spec.node.maxPods", "", "must be 1 to 500, not %d", n)
	}
	l := c.Spec.Storage.Local
	if !dnsSubdomain.MatchString(l.ClassName) {
		p.add("spec.storage.local.className", "use lower-case letters, digits and dashes", "%q is not a valid name", l.ClassName)
	}
	oneOf(&p, "spec.storage.local.reclaimPolicy", l.ReclaimPolicy, "Delete", "Retain")
	c.Spec.GitOps.validate(&p)
	c.Spec.Telemetry.Tracing.validate(&p)
	c.Spec.System.validate(&p, "spec.system")
	c.Spec.OS.validate(&p)
	return p
}

// nodePorts are the ports that the node's own services listen on.
var nodePorts = map[int]string{53: "cluster DNS", 10250: "the kubelet", 10251: "the metrics API"}

// validatePorts keeps the API server and the join endpoint from ports that are taken on every node.
func (c *Cluster) validatePorts(p *problems) {
	cp := c.Spec.ControlPlane
	c.validatePort(p, "spec.controlPlane.port", cp.Port, 6443)
	c.validatePort(p, "spec.controlPlane.joinPort", cp.JoinPort, defaultJoinPort)
	if cp.Port == cp.JoinPort {
		p.add("spec.controlPlane.joinPort", "choose another port", "%d is the API server's", cp.JoinPort)
	}
}

func (c *Cluster) validatePort(p *problems, field string, port, usual int) {
	var first, last int
	if _, err := fmt.Sscanf(c.Spec.Network.NodePortRange, "%d-%d", &first, &last); err == nil && port >= first && port <= last {
		p.add(field, "choose a port outside of it", "%d is in use: it is in the node port range %s", port, c.Spec.Network.NodePortRange)
	}
	if user, taken := nodePorts[port]; taken {
		p.add(field, fmt.Sprintf("choose another port, such as %d", usual), "%d is in use by %s", port, user)
	}
}

func (n *NetworkSpec) validate(p *problems) {
	pods := prefixes(p, "spec.network.podCIDRs", n.PodCIDRs, sizes{8, 24, 48, 64})
	services := prefixes(p, "spec.network.serviceCIDRs", n.ServiceCIDRs, sizes{12, 28, 108, 124})
	n.validateFamilies(p, pods, services)
	for _, a := range pods {
		for i, b := range services {
			if a.Overlaps(b) {
				p.add(fmt.Sprintf("spec.network.serviceCIDRs[%d]", i), "choose ranges that do not overlap", "%s overlaps the pod range %s", b, a)
			}
		}
	}
	n.LoadBalancer.validate(p, pods, services)
	oneOf(p, "spec.network.encapsulation", n.Encapsulation, EncapsulationCrossSubnet, EncapsulationAlways)
	for i, name := range n.SpliceNamespaces {
		if !dnsLabel.MatchString(name) {
			p.add(fmt.Sprintf("spec.network.spliceNamespaces[%d]", i), "", "%q is not the name of a namespace", name)
		}
	}
	for i, c := range n.NonMasqueradeCIDRs {
		if _, err := netip.ParsePrefix(c); err != nil {
			p.add(fmt.Sprintf("spec.network.nonMasqueradeCIDRs[%d]", i), `write a range such as "192.168.0.0/16"`, "%q is not an address range", c)
		}
	}
	var first, last int
	if _, err := fmt.Sscanf(n.NodePortRange, "%d-%d", &first, &last); err != nil || first < 1 || last > 65535 || first > last {
		p.add("spec.network.nodePortRange", `write "first-last", such as "30000-32767"`, "%q is not a port range", n.NodePortRange)
	}
	if !dnsSubdomain.MatchString(n.DNS.Domain) {
		p.add("spec.network.dns.domain", "", "%q is not a domain name", n.DNS.Domain)
	}
	if a, err := netip.ParseAddr(n.DNS.Address); len(services) > 0 {
		if err != nil || !services[0].Contains(a) {
			p.add("spec.network.dns.address", "", "%q is not an address in the service range %s", n.DNS.Address, services[0])
		}
	}
	for i, u := range n.DNS.Upstreams {
		if _, err := netip.ParseAddr(u); err == nil {
			continue
		}
		if _, err := netip.ParseAddrPort(u); err != nil {
			p.add(fmt.Sprintf("spec.network.dns.upstreams[%d]", i), "", "%q is not an address or address:port", u)
		}
	}
}

// validateFamilies makes sure that both lists have the same families in the same order: Kubernetes takes
// the first of each for the cluster's own.
func (n *NetworkSpec) validateFamilies(p *problems, pods, services []netip.Prefix) {
	if len(pods) != len(n.PodCIDRs) || len(services) != len(n.ServiceCIDRs) {
		return // something else is wrong with them, and was said
	}
	same := slices.EqualFunc(pods, services, func(a, b netip.Prefix) bool { return a.Addr().Is4() == b.Addr().Is4() })
	if !same {
		p.add("spec.network.serviceCIDRs", "give a service range for each pod range, in the same order",
			"%v do not have the address families of the pod ranges %v", services, pods)
	}
}

// sizes are the shortest and the longest prefix of each family.
type sizes struct{ shortest4, longest4, shortest6, longest6 int }

func (s sizes) of(p netip.Prefix) (shortest, longest int) {
	if p.Addr().Is4() {
		return s.shortest4, s.longest4
	}
	return s.shortest6, s.longest6
}

// prefixes parses ranges, one per family at most, within the given sizes of prefix.
func prefixes(p *problems, field string, cidrs []string, allowed sizes) []netip.Prefix {
	var out []netip.Prefix
	seen := map[bool]bool{}
	for i, c := range cidrs {
		at := fmt.Sprintf("%s[%d]", field, i)
		pre, err := netip.ParsePrefix(c)
		switch {
		case err != nil:
			p.add(at, `write a range such as "10.244.0.0/16"`, "%q is not an address range", c)
			continue
		case pre.Addr().Is4In6() || pre.Addr().Zone() != "":
			p.add(at, `write a range such as "10.244.0.0/16"`, "%q is neither an IPv4 nor an IPv6 range", c)
			continue
		case pre != pre.Masked():
			p.add(at, fmt.Sprintf("write %q", pre.Masked()), "%q has bits set beyond its prefix", c)
			continue
		case seen[pre.Addr().Is4()]:
			p.add(at, "keep one range per address family", "a second range of the same family")
			continue
		}
		if shortest, longest := allowed.of(pre); pre.Bits() < shortest || pre.Bits() > longest {
			p.add(at, fmt.Sprintf("choose a prefix between /%d and /%d", shortest, longest), "/%d is not usable here", pre.Bits())
			continue
		}
		seen[pre.Addr().Is4()] = true
		out = append(out, pre)
	}
	return out
}

func (c *ControlPlaneSpec) validate(p *problems) {
	if c.Port < 1 || c.Port > 65535 {
		p.add("spec.controlPlane.port", "", "must be 1 to 65535, not %d", c.Port)
	}
	if c.JoinPort < 1 || c.JoinPort > 65535 {
		p.add("spec.controlPlane.joinPort", "", "must be 1 to 65535, not %d", c.JoinPort)
	}
	atLeast(p, "spec.controlPlane.eventTTL", c.EventTTL.Duration, time.Minute)
	atLeast(p, "spec.controlPlane.etcd.compactionInterval", c.Etcd.CompactionInterval.Duration, time.Minute)
	if q := c.Etcd.QuotaMiB; q < 64 || q > 8192 {
		p.add("spec.controlPlane.etcd.quotaMiB", "", "must be 64 to 8192, not %d", q)
	}
	for i, san := range c.ExtraSANs {
		if _, err := netip.ParseAddr(san); err != nil && !dnsSubdomain.MatchString(strings.TrimPrefix(san, "*.")) {
			p.add(fmt.Sprintf("spec.controlPlane.extraSANs[%d]", i), "", "%q is neither an address nor a DNS name", san)
		}
	}
}

func (s *SecuritySpec) validate(p *problems) {
	for _, l := range []struct{ field, value string }{
		{"enforce", s.PodSecurity.Enforce}, {"warn", s.PodSecurity.Warn}, {"audit", s.PodSecurity.Audit},
	} {
		oneOf(p, "spec.security.podSecurity."+l.field, l.value, "privileged", "baseline", "restricted")
	}
	for i, ns := range s.PodSecurity.ExemptNamespaces {
		if !dnsLabel.MatchString(ns) {
			p.add(fmt.Sprintf("spec.security.podSecurity.exemptNamespaces[%d]", i), "", "%q is not a namespace name", ns)
		}
	}
	atLeast(p, "spec.security.encryption.rotateEvery", s.Encryption.RotateEvery.Duration, time.Hour)
	if s.Audit.MaxSizeMiB < 1 {
		p.add("spec.security.audit.maxSizeMiB", "", "must be at least 1")
	}
	if s.Audit.MaxBackups < 1 {
		p.add("spec.security.audit.maxBackups", "", "must be at least 1")
	}
}

// Validate returns what is wrong with a defaulted TrustRoot.
func (r *TrustRoot) Validate() []*FieldError {
	var p problems
	if r.Version < 1 {
		p.add("version", "start with version: 1 and add one at each change", "must be at least 1, not %d", r.Version)
	}
	if len(r.Signers) == 0 {
		p.add("signers", "add the name and public key of at least one signer", "is empty: nobody could ever sign")
	}
	names := map[string]bool{}
	for i, s := range r.Signers {
		at := fmt.Sprintf("signers[%d]", i)
		if !signerName.MatchString(s.Name) {
			p.add(at+".name", "use letters, digits and . _ @ + -", "%q is not a valid signer name", s.Name)
		}
		if names[s.Name] {
			p.add(at+".name", "give each key its own signer name", "signer %q is listed twice", s.Name)
		}
		names[s.Name] = true
		oneOf(&p, at+".kind", s.Kind, "ssh", "openpgp", "x509")
		if s.Kind == "x509" {
			s.validateX509(&p, at)
		} else {
			s.validateKey(&p, at)
		}
		if s.NotBefore != nil && s.NotAfter != nil && !s.NotBefore.Before(*s.NotAfter) {
			p.add(at+".notAfter", "", "is not after notBefore")
		}
	}
	for i, rule := range r.Rules {
		rule.validate(&p, fmt.Sprintf("rules[%d]", i), names)
	}
	return p
}

func (s *Signer) validateKey(p *problems, at string) {
	if strings.TrimSpace(s.PublicKey) == "" {
		p.add(at+".publicKey", "paste the public key", "is empty")
	}
	for _, f := range s.x509Fields() {
		if f.value != "" {
			p.add(at+"."+f.name, "remove it, or write kind: x509", "is not for signers of kind %s", s.Kind)
		}
	}
}

func (s *Signer) validateX509(p *problems, at string) {
	if s.PublicKey != "" {
		p.add(at+".publicKey", "pin the certificate's issuer in certificateAuthorities", "is not for signers of kind x509")
	}
	if s.TrustedRoot == "" {
		if strings.TrimSpace(s.CertificateAuthorities) == "" {
			p.add(at+".certificateAuthorities", "paste the PEM certificate of the authority, or a Sigstore trustedRoot", "is empty")
		}
		return
	}
	for _, f := range s.x509Fields() {
		switch f.name {
		case "trustedRoot":
		case "subject", "issuer":
			if f.value == "" {
				p.add(at+"."+f.name, "write whom a certificate must name", "is empty, but anybody can get a certificate of a Sigstore authority")
			}
		default:
			if f.value != "" {
				p.add(at+"."+f.name, "keep one of them", "cannot be given beside trustedRoot, which holds it")
			}
		}
	}
}

type namedValue struct{ name, value string }

func (s *Signer) x509Fields() []namedValue {
	return []namedValue{
		{"certificateAuthorities", s.CertificateAuthorities},
		{"trustedRoot", s.TrustedRoot},
		{"subject", s.Subject},
		{"issuer", s.Issuer},
		{"transparencyLogKeys", s.TransparencyLogKeys},
		{"timestampAuthorities", s.TimestampAuthorities},
	}
}

func (r *Rule) validate(p *problems, at string, names map[string]bool) {
	if len(r.Signers) == 0 {
		p.add(at+".signers", "", "is empty")
	}
	for i, s := range r.Signers {
		if !names[s] {
			p.add(fmt.Sprintf("%s.signers[%d]", at, i), "add the signer or remove the name", "%q is not one of the signers", s)
		}
	}
	if len(r.Paths) == 0 {
		p.add(at+".paths", `write "**" for everything`, "is empty")
	}
	for i, pattern := range r.Paths {
		if pattern == "" || strings.HasPrefix(pattern, "/") || path.Clean(pattern) != strings.TrimSuffix(pattern, "/") || strings.HasPrefix(pattern, "..") {
			p.add(fmt.Sprintf("%s.paths[%d]", at, i), "write a path relative to the repository root", "%q is not a clean relative path", pattern)
		}
	}
	if r.Threshold < 1 || r.Threshold > 2 {
		p.add(at+".threshold", "", "must be 1 or 2, not %d", r.Threshold)
	}
}

// Validate returns what is wrong with a defaulted BootConfig.
func (b *BootConfig) Validate() []*FieldError {
	var p problems
	if b.MachineName != "" && !dnsSubdomain.MatchString(b.MachineName) {
		p.add("machineName", "use lower-case letters, digits and dashes", "%q is not a valid node name", b.MachineName)
	}
	b.Repository.validate(&p, b.Endpoint.Pushable())
	switch {
	case b.Trust.Root == nil && !b.Trust.None:
		p.add("trust", "give trust.root, or trust.none: true to accept commits that nobody signed", "no trust root is configured")
	case b.Trust.Root != nil && b.Trust.None:
		p.add("trust.none", "keep one of them", "cannot be true beside a trust root")
	case b.Trust.Root != nil:
		for _, e := range b.Trust.Root.Validate() {
			p.add("trust.root."+e.Field, e.Remedy, "%s", e.Problem)
		}
	}
	b.Network.validate(&p)
	if b.Endpoint != nil {
		b.Endpoint.validate(&p)
	}
	b.Decryption.validate(&p)
	if b.Install != nil {
		b.Install.Disk.validate(&p, "install.disk")
	}
	if b.Reset != "" && (!plainText.MatchString(b.Reset) || len(b.Reset) > 64) {
		p.add("reset", "write a word, such as a date", "%q has more than 64 characters, or others than letters, digits and signs", b.Reset)
	}
	return p
}

func (n *BootNetwork) validate(p *problems) {
	if n.Address != "" && !isAddress(n.Address) {
		if _, err := netip.ParsePrefix(n.Address); err != nil {
			p.add("network.address", "write it like 192.0.2.10 or 192.0.2.10/24", "%q is not an IP address", n.Address)
		}
	}
	if n.Gateway != "" && !isAddress(n.Gateway) {
		p.add("network.gateway", "", "%q is not an IP address", n.Gateway)
	}
	if n.Gateway != "" && !strings.Contains(n.Address, "/") {
		p.add("network.gateway", "give network.address with the length of its prefix, or leave both to DHCP", "has no address to go with")
	}
	if n.VLAN < 0 || n.VLAN > 4094 {
		p.add("network.vlan", "use 1 to 4094, or 0 for none", "%d is not a VLAN", n.VLAN)
	}
	for i, a := range n.DNS {
		if !isAddress(a) {
			p.add(fmt.Sprintf("network.dns[%d]", i), "", "%q is not an IP address", a)
		}
	}
	for i, a := range n.NTP {
		if !isAddress(a) && !dnsSubdomain.MatchString(a) {
			p.add(fmt.Sprintf("network.ntp[%d]", i), "", "%q is neither an IP address nor a name", a)
		}
	}
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func oneOf(p *problems, field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(field, "write one of "+strings.Join(allowed, ", "), "%q is not allowed", value)
	}
}

func atLeast(p *problems, field string, value, least time.Duration) {
	if value < least {
		p.add(field, "", "must be at least %s, not %s", least, value)
	}
}
