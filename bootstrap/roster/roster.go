package roster

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
)

// Member is an enrolled machine.
type Member struct {
	Name string `json:"name"`
	// Identity is the fingerprint of its key.
	Identity string `json:"identity"`
	Worker   bool   `json:"worker,omitempty"`
	// Addresses are those that the commit gives it, if any.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// Roster are the members in the order of their names. The zero value is empty.
type Roster struct {
	Members []Member `json:"members,omitempty"`
}

// New makes a roster of the Machines of a commit, which are valid. Those without identity are
// not on it.
func New(machines []*v1alpha1.Machine) Roster {
	var r Roster
	for _, m := range machines {
		if m.Spec.Identity == "" {
			continue
		}
		member := Member{Name: m.Metadata.Name, Identity: m.Spec.Identity, Worker: m.IsWorker()}
		for _, a := range m.Spec.Addresses {
			if addr, err := netip.ParseAddr(a); err == nil {
				member.Addresses = append(member.Addresses, addr.Unmap())
			}
		}
		r.Members = append(r.Members, member)
	}
	slices.SortFunc(r.Members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// ByIdentity finds the machine with a key.
func (r Roster) ByIdentity(fingerprint string) (Member, bool) {
	return r.find(func(m Member) bool { return m.Identity == fingerprint })
}

// ByName finds the machine with a name.
func (r Roster) ByName(name string) (Member, bool) {
	return r.find(func(m Member) bool { return m.Name == name })
}

func (r Roster) find(match func(Member) bool) (Member, bool) {
	if i := slices.IndexFunc(r.Members, match); i >= 0 {
		return r.Members[i], true
	}
	return Member{}, false
}

// Owner finds the machine that the commit gives an address to.
func (r Roster) Owner(addr netip.Addr) (Member, bool) {
	return r.find(func(m Member) bool { return slices.Contains(m.Addresses, addr.Unmap()) })
}

// Workers are the members without a control plane.
func (r Roster) Workers() []Member {
	return slices.DeleteFunc(slices.Clone(r.Members), func(m Member) bool { return !m.Worker })
}

// ControlPlanes are the others.
func (r Roster) ControlPlanes() []Member {
	return slices.DeleteFunc(slices.Clone(r.Members), func(m Member) bool { return m.Worker })
}

// Write puts the roster into a file. An empty one needs no file, and removes it.
func (r Roster) Write(file string) error {
	if len(r.Members) == 0 {
		if _, err := os.Lstat(file); err != nil {
			return nil //nolint:nilerr // there is none
		}
		return durable.Remove(file)
	}
	return durable.WriteJSON(file, r, 0o600)
}

// Reader reads a roster's file when it has changed.
type Reader struct {
	file string

	mu     sync.Mutex
	stamp  stamp
	loaded Roster
}

// stamp tells one content of the file from the next: it is always replaced as a whole.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// NewReader returns a reader of a file that need not exist yet.
func NewReader(file string) *Reader { return &Reader{file: file} }

// Read returns the present content. Without a file nobody is enrolled.
func (r *Reader) Read() (Roster, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := stampOf(r.file)
	if err != nil {
		r.stamp = stamp{}
		if os.IsNotExist(err) {
			return Roster{}, nil
		}
		return Roster{}, fmt.Errorf("look at the roster: %w", err)
	}
	if now == r.stamp {
		return r.loaded, nil
	}
	var next Roster
	if err := durable.ReadJSON(r.file, &next); err != nil {
		r.stamp = stamp{}
		return Roster{}, fmt.Errorf("read the roster: %w", err)
	}
	r.stamp, r.loaded = now, next
	return next, nil
}
