package bootstrap

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/roster"
)

// everybody may do everything.
type everybody struct{ authorizer.Authorizer }

func (everybody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionAllow, "", nil
}

func TestOnlyEnrolledMachinesAreHeard(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roster.json")
	enrol := func(role, identity string) {
		t.Helper()
		m := v1alpha1.NewMachine("w")
		m.Spec.Role, m.Spec.Identity = role, identity
		if err := roster.New([]*v1alpha1.Machine{m}).Write(file); err != nil {
			t.Fatal(err)
		}
	}
	e := &enrolled{Authorizer: everybody{}, self: "cp", roster: roster.NewReader(file)}
	nodes, parts := []string{"system:nodes"}, []string{"bothy:workers", "bothy:workers:dns"}
	expect := func(u user.DefaultInfo, denied string) {
		t.Helper()
		decision, reason, err := e.Authorize(t.Context(), authorizer.AttributesRecord{User: &u, Verb: "get"})
		if err != nil || (decision == authorizer.DecisionDeny) != (denied != "") || !strings.Contains(reason, denied) {
			t.Errorf("%+v: %v %q %v, want %q", u, decision, reason, err, denied)
		}
	}
	kubelet := user.DefaultInfo{Name: "system:node:w", Groups: nodes, UID: "id"}
	dns := user.DefaultInfo{Name: "bothy:dns:w", Groups: parts, UID: "id"}

	expect(kubelet, "not enrolled")
	enrol(v1alpha1.RoleWorker, "id")
	expect(kubelet, "")
	expect(dns, "")
	// A certificate of another time, and one that was not given to the machine at all.
	for _, uid := range []string{"older", ""} {
		stale := kubelet
		stale.UID = uid
		expect(stale, "another identity")
	}
	enrol(v1alpha1.RoleWorker, "newer")
	expect(kubelet, "another identity")
	enrol(v1alpha1.RoleControlPlane, "id")
	expect(kubelet, "not enrolled")
	enrol(v1alpha1.RoleWorker, "id")
	expect(dns, "")
	if err := os.WriteFile(file, []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(dns, "nobody knows")

	// Others are not this one's business: the control plane's own parts, people, pods.
	expect(user.DefaultInfo{Name: "system:node:cp", Groups: nodes}, "")
	expect(user.DefaultInfo{Name: "bothy:dns", Groups: []string{"system:authenticated"}}, "")
	expect(user.DefaultInfo{Name: "alice", Groups: []string{"bothy:admins"}}, "")
	// But nobody becomes the control plane's node by a worker's certificate for that name.
	expect(user.DefaultInfo{Name: "system:node:cp", Groups: nodes, UID: "id"}, "nobody knows")
}
