package roster

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

func machine(name, role, identity string, addresses ...string) *v1alpha1.Machine {
	m := v1alpha1.NewMachine(name)
	m.Spec.Role, m.Spec.Identity, m.Spec.Addresses = role, identity, addresses
	return m
}

func TestRosterOfMachines(t *testing.T) {
	r := New([]*v1alpha1.Machine{
		machine("w2", "worker", "id2"),
		machine("cp", "control-plane", "id0", "192.0.2.1", "2001:db8::1"),
		machine("w1", "worker", "id1", "192.0.2.2"),
		machine("plain", "control-plane", ""),
	})
	var names []string
	for _, m := range r.Workers() {
		names = append(names, m.Name)
	}
	if diff := cmp.Diff([]string{"w1", "w2"}, names); diff != "" {
		t.Errorf("workers:\n%s", diff)
	}
	if cps := r.ControlPlanes(); len(cps) != 1 || cps[0].Name != "cp" || len(cps[0].Addresses) != 2 {
		t.Errorf("control planes: %+v", cps)
	}
	if m, ok := r.ByIdentity("id2"); !ok || m.Name != "w2" {
		t.Errorf("by identity: %+v", m)
	}
	if _, ok := r.ByIdentity(""); ok {
		t.Error("a machine without identity is on the roster")
	}
	if m, ok := r.Owner(netip.MustParseAddr("::ffff:192.0.2.2")); !ok || m.Name != "w1" {
		t.Errorf("owner: %+v", m)
	}
}

func TestReaderFollowsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roster.json")
	reader := NewReader(file)
	expect := func(want Roster) {
		t.Helper()
		got, err := reader.Read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Error(diff)
		}
	}
	expect(Roster{})
	both := New([]*v1alpha1.Machine{machine("a", "worker", "x", "192.0.2.1"), machine("b", "worker", "y")})
	one := New([]*v1alpha1.Machine{machine("c", "worker", "z", "192.0.2.1"), machine("b", "worker", "y")}) // same length
	for _, r := range []Roster{both, one, both, {}} {
		if err := r.Write(file); err != nil {
			t.Fatal(err)
		}
		expect(r)
		expect(r)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("an empty roster left its file: %v", err)
	}
	if err := (Roster{}).Write(file); err != nil {
		t.Errorf("nothing to remove: %v", err)
	}
}

func TestUnreadableRosterIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roster.json")
	good := New([]*v1alpha1.Machine{machine("a", "worker", "x")})
	if err := good.Write(file); err != nil {
		t.Fatal(err)
	}
	reader := NewReader(file)
	if _, err := reader.Read(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := reader.Read(); err == nil || len(got.Members) > 0 {
		t.Errorf("read %+v, %v", got, err)
	}
}
