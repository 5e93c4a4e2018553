package machine

import (
	"log/slog"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

func machine(labels map[string]string, taints ...v1alpha1.Taint) *v1alpha1.Machine {
	m := v1alpha1.NewMachine("n1")
	m.Spec.Labels, m.Spec.Taints = labels, taints
	return m
}

func TestNodeFollowsItsMachine(t *testing.T) {
	cluster := v1alpha1.NewCluster("site")
	cluster.Spec.Node.Labels = map[string]string{"site": "hut", "disk": "slow"}
	foreign := corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}
	client := fake.NewClientset(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"kubernetes.io/os": "linux"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{foreign}},
	})
	keepWith := func(m *v1alpha1.Machine) *corev1.Node {
		t.Helper()
		if err := keep(t.Context(), client, Config{NodeName: "n1", Cluster: cluster, Machine: m, Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		node, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return node
	}

	node := keepWith(machine(map[string]string{"disk": "fast"}, v1alpha1.Taint{Key: "gpu", Value: "yes", Effect: "NoSchedule"}))
	want := map[string]string{"kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "", "site": "hut", "disk": "fast"}
	if !maps.Equal(node.Labels, want) {
		t.Errorf("labels %v", node.Labels)
	}
	if len(node.Spec.Taints) != 2 || node.Spec.Taints[1].Value != "yes" {
		t.Errorf("taints %v", node.Spec.Taints)
	}

	// What leaves Git leaves the node; what others have set stays.
	node = keepWith(machine(nil))
	if want = map[string]string{"kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "", "site": "hut", "disk": "slow"}; !maps.Equal(node.Labels, want) {
		t.Errorf("labels after removal %v", node.Labels)
	}
	if len(node.Spec.Taints) != 1 || node.Spec.Taints[0] != foreign {
		t.Errorf("taints after removal %v", node.Spec.Taints)
	}

	client.ClearActions()
	keepWith(machine(nil))
	for _, a := range client.Actions() {
		if a.GetVerb() == "update" {
			t.Error("an unchanged node was written")
		}
	}
}

func TestUnreadableRecordRemovesNothing(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{Annotation: "{"}}}
	changed, err := merge(node, desired{labels: map[string]string{"c": "d"}})
	if err != nil || !changed || node.Labels["a"] != "b" || node.Labels["c"] != "d" {
		t.Errorf("%v %v %v", node.Labels, changed, err)
	}
}
