package agent

import (
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
)

func TestOneMachineAtATime(t *testing.T) {
	leases := fake.NewClientset().CoordinationV1().Leases(turnNamespace)
	a, b := &turn{leases: leases, self: "a"}, &turn{leases: leases, self: "b"}
	try := func(m *turn, want string) {
		t.Helper()
		if got, err := m.try(t.Context(), time.Minute); got != want || err != nil {
			t.Fatalf("the turn is %q's, not %q's: %v", got, want, err)
		}
	}
	try(a, "a")
	try(b, "a")
	try(a, "a") // the agent was started again
	if err := b.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	try(b, "a")
	if err := a.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	try(b, "b")
	try(a, "b")
	// One that never comes back keeps the others waiting for so long, and no longer.
	a.since = time.Now().Add(-turnSpare - 2*time.Minute)
	try(a, "a")
	try(b, "a")
	var alone *turn
	if err := alone.take(t.Context(), time.Minute, func(string) { t.Error("nobody is waited for") }); err != nil {
		t.Error(err)
	}
}
