package elect

import corev1 "k8s.io/api/core/v1"

// Candidates are the names of the nodes that are Ready and may serve load balancers.
func Candidates(nodes []*corev1.Node) []string {
	var out []string
	for _, n := range nodes {
		if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; !excluded && ready(n) {
			out = append(out, n.Name)
		}
	}
	return out
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
