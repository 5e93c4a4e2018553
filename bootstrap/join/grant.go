package join

import (
	"crypto/ecdsa"
	"crypto/x509"
	"net/netip"
	"slices"

	"github.com/bothy-os/bothy/bootstrap/pki"
	"github.com/bothy-os/bothy/bootstrap/roster"
)

// Group holds all that workers run beside the kubelet; each part has a group of its own besides.
const Group = "bothy:workers"

// PartGroup is the group of one part of all workers.
func PartGroup(part string) string { return Group + ":" + part }

// Names are the certificates that a worker with these parts asks for.
func Names(parts []string) []string {
	return append([]string{pki.Kubelet, pki.KubeletServing}, parts...)
}

// authorise says whether whoever holds a key may have what it asks for, coming from an address.
func authorise(members roster.Roster, fingerprint string, from netip.Addr, r *Request) (roster.Member, error) {
	m, enrolled := members.ByIdentity(fingerprint)
	if !enrolled {
		return m, refuse(NotEnrolled, "machine %q with identity %s is not enrolled: commit its Machine object, with spec.identity, to the site", clip(r.Node), fingerprint)
	}
	if !m.Worker {
		return m, refuse(NotAWorker, "machine %q is enrolled, but not as a worker: give its Machine object spec.role worker", m.Name)
	}
	if r.Node != m.Name {
		return m, refuse(WrongName, "the machine with identity %s is enrolled as %q, not as %q: correct machineName in its boot configuration, or the Machine object", fingerprint, m.Name, clip(r.Node))
	}
	return m, r.narrow(members, m, from.Unmap())
}

// narrow leaves in a request the addresses that its machine may speak with: those that the commit gives to it, or
// else the one that it comes from. An address of another machine is refused.
func (r *Request) narrow(members roster.Roster, m roster.Member, from netip.Addr) error {
	var granted []netip.Addr
	for _, a := range r.Addresses {
		a = a.Unmap()
		if owner, found := members.Owner(a); found && owner.Name != m.Name {
			return refuse(BadAddress, "machine %q asks for the address %s, which is that of machine %q", m.Name, a, owner.Name)
		}
		switch {
		case slices.Contains(m.Addresses, a), len(m.Addresses) == 0 && a == from:
			granted = append(granted, a)
		case len(m.Addresses) > 0:
			return refuse(BadAddress, "machine %q has the address %s: add it to spec.addresses of its Machine object", m.Name, a)
		}
	}
	if len(granted) == 0 {
		return refuse(BadAddress, "machine %q comes from %s, but says that its addresses are %v: write them to spec.addresses of its Machine object", m.Name, from, r.Addresses)
	}
	r.Addresses = granted
	return nil
}

// grants turns requests into certificates as this machine is to have them. Nothing but the key is
// taken from what it sent.
func grants(m roster.Member, parts []string, r *Request) (names []string, out []pki.Request, err error) {
	for _, name := range Names(parts) {
		der, found := r.Certificates[name]
		if !found {
			continue
		}
		key, err := keyOf(name, der)
		if err != nil {
			return nil, nil, err
		}
		g := pki.Request{Key: key, UID: m.Identity}
		switch name {
		case pki.Kubelet:
			g.User, g.Groups = "system:node:"+m.Name, []string{"system:nodes"}
		case pki.KubeletServing:
			g.User, g.Groups = "system:node:"+m.Name, []string{"system:nodes"}
			g.Serving, g.DNSNames, g.IPs = true, []string{m.Name}, r.Addresses
		default:
			g.User, g.Groups = "bothy:"+name+":"+m.Name, []string{Group, PartGroup(name)}
		}
		names, out = append(names, name), append(out, g)
	}
	if len(names) == 0 || len(names) != len(r.Certificates) {
		return nil, nil, refuse(BadRequest, "machine %q asks for certificates that workers do not have; is it of another version?", m.Name)
	}
	return names, out, nil
}

func keyOf(name string, der []byte) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse(BadRequest, "the request for certificate %s cannot be read: %v", name, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse(BadRequest, "the request for certificate %s is not signed with its key: %v", name, err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, refuse(BadRequest, "the request for certificate %s is for a key of type %T, not ECDSA", name, csr.PublicKey)
	}
	return key, nil
}

// clip keeps what a stranger says short.
func clip(text string) string { return text[:min(len(text), 64)] }
