package policy

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Table is where rows go: maps.Tables, or a fake in tests.
type Table interface {
	PolicyRules() ([]tables.PolicyRule, error)
	PutPolicyRules([]tables.PolicyRule) error
	DeletePolicyRules([]tables.PolicyRule) error
	PolicyPeers() (map[netip.Prefix]uint32, error)
	PutPolicyPeers([]tables.PolicyPeer) error
	DeletePolicyPeers([]netip.Prefix) error
	Endpoints() ([]tables.Endpoint, error)
	SetIdentity(addr netip.Addr, identity uint32) (connected bool, err error)
	NextPolicyRevision() error
}

// Writer is the one writer of the policy tables and of pods' identities. It is not safe
// for concurrent use.
type Writer struct {
	table   Table
	Numbers *Numbers

	rules      map[tables.PolicyRule]bool
	peers      map[netip.Prefix]uint32
	identities map[netip.Addr]uint32
	revoke     bool // the revision is behind what is in the tables
	revoked    int  // how often it was raised
	plan       *Plan
}

// NewWriter takes over what is in the tables.
func NewWriter(table Table) (*Writer, error) {
	w := &Writer{table: table, rules: map[tables.PolicyRule]bool{}, identities: map[netip.Addr]uint32{}}
	rules, err := table.PolicyRules()
	if err != nil {
		return nil, err
	}
	if w.peers, err = table.PolicyPeers(); err != nil {
		return nil, err
	}
	endpoints, err := table.Endpoints()
	if err != nil {
		return nil, err
	}
	var subjects []uint32
	for _, r := range rules {
		w.rules[r] = true
		subjects = append(subjects, r.Subject&tables.SubjectMax)
	}
	for _, e := range endpoints {
		w.identities[e.Addr] = e.Identity
		subjects = append(subjects, e.Identity&tables.SubjectMax)
	}
	w.Numbers = &Numbers{
		subjects: newNumbers("sets of policies", tables.SubjectMax, subjects),
		peers:    newNumbers("classes of peers", math.MaxUint32, slices.Collect(maps.Values(w.peers))),
	}
	return w, nil
}

// Identity is what the tables say of a pod.
func (w *Writer) Identity(addr netip.Addr) (uint32, bool) {
	identity, known := w.identities[addr]
	return identity, known
}

// Connected notes that a pod's row was written with this identity.
func (w *Writer) Connected(addr netip.Addr, identity uint32) { w.identities[addr] = identity }

// Disconnected notes that a pod's row is gone.
func (w *Writer) Disconnected(addr netip.Addr) { delete(w.identities, addr) }

// Apply puts a plan in force. Until it returns nil, what was in force before may be so in
// part. Meanwhile no pod allows what it does neither before nor after, and established flows go on; one
// that begins in that moment may have to try twice. Rows that nothing refers to any more stay until
// [Writer.Reap]; garbage says whether there are any.
func (w *Writer) Apply(p *Plan) (garbage bool, err error) {
	if err := w.addRules(p); err != nil {
		return false, err
	}
	if err := w.flip(p); err != nil {
		return false, err
	}
	w.plan = p
	if w.revoke {
		if err := w.table.NextPolicyRevision(); err != nil {
			return false, err
		}
		w.revoke = false
		w.revoked++
	}
	return len(w.rules) > len(p.Rules) || len(w.Numbers.subjects.of) > len(p.subjects) || len(w.Numbers.peers.of) > len(p.peers), nil
}

// InForce is the plan that was applied last.
func (w *Writer) InForce() *Plan { return w.plan }

func (w *Writer) addRules(p *Plan) error {
	var missing []tables.PolicyRule
	for r := range p.Rules {
		if !w.rules[r] {
			missing = append(missing, r)
		}
	}
	if err := w.table.PutPolicyRules(missing); err != nil {
		return err
	}
	for _, r := range missing {
		w.rules[r] = true
	}
	return nil
}

// flip is when packets meet the new plan.
func (w *Writer) flip(p *Plan) error {
	if err := w.flipPeers(p); err != nil {
		return err
	}
	for addr, identity := range p.Identities {
		was, connected := w.identities[addr]
		if !connected || was == identity {
			continue
		}
		w.revoke = true
		if _, err := w.table.SetIdentity(addr, identity); err != nil {
			return err
		}
		w.identities[addr] = identity
	}
	return w.withdraw(p)
}

// flipPeers never has an address in a block that it is excepted from: exceptions come before their
// block, and go after it.
func (w *Writer) flipPeers(p *Plan) error {
	var changed []tables.PolicyPeer
	for prefix, number := range p.Peers {
		was, known := w.peers[prefix]
		if known && was == number {
			continue
		}
		changed = append(changed, tables.PolicyPeer{Prefix: prefix, Number: number})
		// A new row can only allow more: it has all that the block around it has.
		w.revoke = w.revoke || known
	}
	var gone []netip.Prefix
	for prefix := range w.peers {
		if _, wanted := p.Peers[prefix]; !wanted {
			gone = append(gone, prefix)
		}
	}
	w.revoke = w.revoke || len(gone) > 0
	slices.SortFunc(changed, func(a, b tables.PolicyPeer) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	slices.SortFunc(gone, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	if err := w.table.PutPolicyPeers(changed); err != nil {
		return err
	}
	for _, c := range changed {
		w.peers[c.Prefix] = c.Number
	}
	if err := w.table.DeletePolicyPeers(gone); err != nil {
		return err
	}
	for _, prefix := range gone {
		delete(w.peers, prefix)
	}
	return nil
}

// withdraw deletes rules between a subject and a peer that are both still there: the policy itself
// has changed.
func (w *Writer) withdraw(p *Plan) error {
	subjects, peers := map[uint32]bool{}, map[uint32]bool{0: true}
	for _, identity := range p.Identities {
		subjects[identity&tables.SubjectMax] = true
	}
	for _, number := range p.Peers {
		peers[number] = true
	}
	return w.deleteRules(func(r tables.PolicyRule) bool {
		gone := !p.Rules[r] && subjects[r.Subject&tables.SubjectMax] && peers[r.Peer]
		w.revoke = w.revoke || gone
		return gone
	})
}

// Reap deletes what the plan in force has no use for, and frees its numbers. No program may run
// that began before Apply returned; see maps.Settled.
func (w *Writer) Reap() error {
	if w.plan == nil {
		return nil
	}
	if err := w.deleteRules(func(r tables.PolicyRule) bool { return !w.plan.Rules[r] }); err != nil {
		return err
	}
	w.Numbers.subjects.keep(w.plan.subjects)
	w.Numbers.peers.keep(w.plan.peers)
	return nil
}

func (w *Writer) deleteRules(match func(tables.PolicyRule) bool) error {
	var gone []tables.PolicyRule
	for r := range w.rules {
		if match(r) {
			gone = append(gone, r)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := w.table.DeletePolicyRules(gone); err != nil {
		return fmt.Errorf("withdraw %d rules: %w", len(gone), err)
	}
	for _, r := range gone {
		delete(w.rules, r)
	}
	return nil
}

// Counts are the rows in the tables.
func (w *Writer) Counts() (peers, rules int) { return len(w.peers), len(w.rules) }
