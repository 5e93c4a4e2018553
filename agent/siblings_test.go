package agent

import (
	"fmt"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/bothy-os/bothy/bootstrap/roster"
	"github.com/bothy-os/bothy/images/peer"
)

// Images are asked for of machines that are enrolled and Ready, and of nobody else.
func TestWhoIsAskedForImages(t *testing.T) {
	file := filepath.Join(t.TempDir(), peer.NodesFile)
	listed := func() string {
		t.Helper()
		nodes, found, err := peer.ReadNodes(file)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(found, nodes)
	}
	node := func(name, address string, ready corev1.ConditionStatus) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: address}}
		return n
	}
	members := roster.Roster{Members: []roster.Member{{Name: "cp", Identity: "1"}, {Name: "w1", Identity: "2", Worker: true}, {Name: "w2", Identity: "3", Worker: true}}}
	s := &siblings{self: "w1", members: members, known: map[string]peer.Node{}}
	for _, n := range []*corev1.Node{
		node("cp", "fd00::1", corev1.ConditionTrue), node("w1", "192.0.2.1", corev1.ConditionTrue),
		node("w2", "192.0.2.2", corev1.ConditionTrue), node("stranger", "192.0.2.3", corev1.ConditionTrue),
	} {
		s.note(n, watch.Added)
	}
	check := func(what, want string) {
		t.Helper()
		if got := listed(); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	if err := s.write(file); err != nil {
		t.Fatal(err)
	}
	check("all are up", "true [{cp [fd00::1]:5443} {w2 192.0.2.2:5443}]")
	s.note(node("w2", "192.0.2.2", corev1.ConditionUnknown), watch.Modified)
	s.note(node("cp", "fd00::1", corev1.ConditionTrue), watch.Deleted)
	if err := s.write(file); err != nil {
		t.Fatal(err)
	}
	check("none is up", "true []")
	if err := peer.WriteNodes(file, []peer.Node{{Name: "cp", Address: "x"}, {Name: "gone", Address: "y"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, self, want string
		members          roster.Roster
	}{
		{"one left", "w1", "true [{cp x}]", members},
		{"this one left", "w9", "false []", members},
		{"the only one", "cp", "false []", roster.Roster{Members: members.Members[:1]}},
		{"a site without identities", "cp", "false []", roster.Roster{}},
	} {
		if err := keepSiblings(file, c.members, c.self); err != nil {
			t.Fatal(err)
		}
		check(c.what, c.want)
	}
}
