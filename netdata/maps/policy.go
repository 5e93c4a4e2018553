package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// What an endpoint's identity says: in which directions the pod is isolated, and the number of its
// subject. Zero is a pod that no policy selects.
const (
	IsolatedIngress uint32 = 1 << 31
	IsolatedEgress  uint32 = 1 << 30
	// SubjectMax is the largest subject number.
	SubjectMax uint32 = 1<<24 - 1
	// DenyAll is the identity of a pod about which nothing is known: rules of subject 0 do
	// not exist.
	DenyAll = IsolatedIngress | IsolatedEgress
)

// PolicyRule allows something; there are no rules that deny.
type PolicyRule struct {
	// Subject is a number, of 1 to SubjectMax, and a direction: IsolatedIngress or
	// IsolatedEgress.
	Subject uint32
	// Peer is the number of the other end, 0 for anybody.
	Peer uint32
	// Proto is 0 for every protocol; then there is no port.
	Proto Protocol
	// Port with PortBits is a range of ports as a prefix: 0 bits are all ports, 16 are one.
	Port     uint16
	PortBits uint8
}

const (
	ruleBitsPeer = 64 // subject and peer
	ruleBitsPort = 80 // and protocol
)

func (r PolicyRule) key() bpf.IPv4RuleKey {
	k := bpf.IPv4RuleKey{Bits: ruleBitsPeer, Subject: r.Subject, Peer: r.Peer}
	if r.Proto != 0 {
		k.Bits = ruleBitsPort + uint32(r.PortBits)
		k.Proto, k.Port = uint8(r.Proto), netPort(r.Port)
	}
	return k
}

func fromRuleKey(k bpf.IPv4RuleKey) PolicyRule {
	r := PolicyRule{Subject: k.Subject, Peer: k.Peer}
	if k.Bits > ruleBitsPeer {
		r.Proto, r.Port, r.PortBits = Protocol(k.Proto), hostPort(k.Port), uint8(k.Bits-ruleBitsPort)
	}
	return r
}

// PolicyRules reads all rules.
func (t *Tables) PolicyRules() ([]PolicyRule, error) {
	var out []PolicyRule
	err := each(t.shared["policy_rules"], func(k bpf.IPv4RuleKey, _ uint32) { out = append(out, fromRuleKey(k)) })
	if err != nil {
		return nil, fmt.Errorf("policy rules: %w", err)
	}
	return out, nil
}

// PutPolicyRules adds rules; those that exist stay as they are.
func (t *Tables) PutPolicyRules(rules []PolicyRule) error {
	keys, ones := make([]bpf.IPv4RuleKey, len(rules)), make([]uint32, len(rules))
	for i, r := range rules {
		keys[i], ones[i] = r.key(), 1
	}
	return putAll(t.shared["policy_rules"], "policy rules", keys, ones)
}

// DeletePolicyRules removes rules; missing ones are not an error.
func (t *Tables) DeletePolicyRules(rules []PolicyRule) error {
	for _, r := range rules {
		if err := ignoreMissing(t.shared["policy_rules"].Delete(r.key())); err != nil {
			return fmt.Errorf("delete policy rule: %w", err)
		}
	}
	return nil
}

func peerKey[A Words](p netip.Prefix) peerKeyRow[A] {
	return peerKeyRow[A]{Bits: uint32(p.Bits()), Addr: ToWords[A](p.Addr())}
}

// PolicyPeer gives the addresses of a prefix their number.
type PolicyPeer struct {
	Prefix netip.Prefix
	Number uint32
}

// PolicyPeers reads the numbers of addresses.
func (t *Tables) PolicyPeers() (map[netip.Prefix]uint32, error) {
	out := map[netip.Prefix]uint32{}
	err := t.each(func(f *family) error { return pick(f, policyPeers[Addr4], policyPeers[Addr6])(f, out) })
	if err != nil {
		return nil, fmt.Errorf("policy peers: %w", err)
	}
	return out, nil
}

func policyPeers[A Words](f *family, out map[netip.Prefix]uint32) error {
	return each(f.byID["policy_peers"], func(k peerKeyRow[A], number uint32) {
		out[netip.PrefixFrom(FromWords(k.Addr), int(k.Bits))] = number
	})
}

// PutPolicyPeers gives addresses their numbers, in this order. Of several prefixes that hold an
// address the longest counts. Those of a family that the node does not have are left out.
func (t *Tables) PutPolicyPeers(peers []PolicyPeer) error {
	return t.each(func(f *family) error { return pick(f, putPolicyPeers[Addr4], putPolicyPeers[Addr6])(f, peers) })
}

func putPolicyPeers[A Words](f *family, peers []PolicyPeer) error {
	var keys []peerKeyRow[A]
	var numbers []uint32
	for _, p := range peers {
		if FamilyOf(p.Prefix.Addr()) == f.family {
			keys, numbers = append(keys, peerKey[A](p.Prefix)), append(numbers, p.Number)
		}
	}
	return putAll(f.byID["policy_peers"], "policy peers", keys, numbers)
}

// DeletePolicyPeers removes prefixes, in this order; missing ones are not an error.
func (t *Tables) DeletePolicyPeers(peers []netip.Prefix) error {
	for _, p := range peers {
		f, err := t.of(p.Addr())
		if err != nil {
			continue // the node has no such family, so there is no row
		}
		if err := pick(f, deletePolicyPeer[Addr4], deletePolicyPeer[Addr6])(f, p); err != nil {
			return fmt.Errorf("delete policy peer %s: %w", p, err)
		}
	}
	return nil
}

func deletePolicyPeer[A Words](f *family, p netip.Prefix) error {
	return ignoreMissing(f.byID["policy_peers"].Delete(peerKey[A](p)))
}

// SetIdentity changes what policy knows a pod by. A pod that is not connected is not an
// error: false is returned.
func (t *Tables) SetIdentity(addr netip.Addr, identity uint32) (bool, error) {
	f, err := t.of(addr)
	if err == nil {
		err = pick(f, setIdentity[Addr4], setIdentity[Addr6])(f, addr, identity)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("set policy identity of %s: %w", addr, err)
	}
	return true, nil
}

func setIdentity[A Words](f *family, addr netip.Addr, identity uint32) error {
	var row bpf.IPv4Endpoint
	if err := f.byID["endpoints"].Lookup(ToWords[A](addr), &row); err != nil {
		return err
	}
	row.Identity = identity
	if err := f.byID["endpoints"].Update(ToWords[A](addr), row, ebpf.UpdateExist); err != nil {
		return err
	}
	return putNear(f, ToWords[A](addr), row)
}

// NextPolicyRevision has every established flow judged anew on its next packet.
func (t *Tables) NextPolicyRevision() error {
	return t.changeState(func(s *State) { s.PolicyRevision++ })
}

func putAll[K, V any](m *ebpf.Map, what string, keys []K, values []V) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := m.BatchUpdate(keys, values, nil)
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("write %d %s: the table holds at most %d rows: %w", len(keys), what, m.MaxEntries(), err)
	}
	if err != nil {
		return fmt.Errorf("write %d %s: %w", len(keys), what, err)
	}
	return nil
}

// Settled returns when no program runs any more that began before the call: what such a
// one has read of rows that were replaced may then be deleted.
func Settled() error {
	// One of the few system calls that wait for what the kernel calls a grace period.
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return fmt.Errorf("wait for running programs: membarrier: %w", errno)
	}
	return nil
}
