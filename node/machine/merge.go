package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// Annotation records what this package has set on a Node.
const Annotation = "bothy.dev/machine"

// rolePrefix begins the labels that `kubectl get nodes` shows as roles.
const rolePrefix = "node-role.kubernetes.io/"

// owned is the content of the annotation.
type owned struct {
	Labels []string `json:"labels,omitempty"`
	// Taints are key and effect, which identify a taint.
	Taints []taintID `json:"taints,omitempty"`
}

type taintID struct {
	Key    string `json:"key"`
	Effect string `json:"effect"`
}

// desired is what Git says.
type desired struct {
	labels map[string]string
	taints []v1alpha1.Taint
}

func want(cluster *v1alpha1.Cluster, m *v1alpha1.Machine) desired {
	labels := map[string]string{rolePrefix + m.Spec.Role: ""}
	maps.Copy(labels, cluster.Spec.Node.Labels)
	maps.Copy(labels, m.Spec.Labels)
	return desired{labels: labels, taints: m.Spec.Taints}
}

// merge changes node to what is desired and reports whether anything differs.
// An annotation that cannot be read counts as empty: nothing is removed then.
func merge(node *corev1.Node, d desired) (bool, error) {
	before := node.DeepCopy()
	var had owned
	_ = json.Unmarshal([]byte(node.Annotations[Annotation]), &had)

	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	for _, key := range had.Labels {
		delete(node.Labels, key)
	}
	maps.Copy(node.Labels, d.labels)

	remove := slices.Clone(had.Taints)
	for _, t := range d.taints {
		remove = append(remove, taintID{t.Key, t.Effect})
	}
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool {
		return slices.Contains(remove, taintID{t.Key, string(t.Effect)})
	})
	now := owned{Labels: slices.Sorted(maps.Keys(d.labels))}
	for _, t := range d.taints {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)})
		now.Taints = append(now.Taints, taintID{t.Key, t.Effect})
	}
	record, err := json.Marshal(now)
	if err != nil {
		return false, fmt.Errorf("encode annotation %s: %w", Annotation, err)
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Annotations[Annotation] = string(record)
	same := maps.Equal(before.Labels, node.Labels) &&
		before.Annotations[Annotation] == node.Annotations[Annotation] &&
		slices.EqualFunc(before.Spec.Taints, node.Spec.Taints, func(a, b corev1.Taint) bool { return a.MatchTaint(&b) && a.Value == b.Value })
	return !same, nil
}
