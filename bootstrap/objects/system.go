package objects

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Namespace is where bothy keeps its own objects.
const Namespace = "bothy-system"

// System returns the objects of the control plane itself.
//
// The endpoints of the kubernetes Service are among them: with one API server
// at a fixed address they never change, and being constant they stay in place
// while it restarts.
func System(nodeIP netip.Addr, port int, adminGroup, kubeletClientUser string) []*unstructured.Unstructured {
	family := "IPv4"
	if nodeIP.Is6() {
		family = "IPv6"
	}
	meta := func(name string) map[string]any { return map[string]any{"name": name} }
	binding := func(name, role, kind, subject string) map[string]any {
		return map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta(name),
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
			"subjects": []any{map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject}},
		}
	}
	endpointPort := []any{map[string]any{"name": "https", "port": int64(port), "protocol": "TCP"}}
	objs := []map[string]any{
		{"apiVersion": "v1", "kind": "Namespace", "metadata": meta(Namespace)},
		binding("bothy:admins", "cluster-admin", "Group", adminGroup),
		binding("bothy:apiserver-kubelet-client", "system:kubelet-api-admin", "User", kubeletClientUser),
		{
			"apiVersion": "v1", "kind": "Endpoints",
			"metadata": map[string]any{
				"name": "kubernetes", "namespace": "default",
				"labels": map[string]any{"endpointslice.kubernetes.io/skip-mirror": "true"},
			},
			"subsets": []any{map[string]any{
				"addresses": []any{map[string]any{"ip": nodeIP.String()}},
				"ports":     endpointPort,
			}},
		},
		{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
			"metadata": map[string]any{
				"name": "kubernetes", "namespace": "default",
				"labels": map[string]any{"kubernetes.io/service-name": "kubernetes"},
			},
			"addressType": family,
			"endpoints": []any{map[string]any{
				"addresses":  []any{nodeIP.String()},
				"conditions": map[string]any{"ready": true},
			}},
			"ports": endpointPort,
		},
	}
	out := make([]*unstructured.Unstructured, 0, len(objs))
	for _, o := range objs {
		out = append(out, &unstructured.Unstructured{Object: o})
	}
	return out
}
