package policy

import (
	_ "embed"
	"encoding/json"
	"slices"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// systemNamespaces are never subject to Pod Security admission: what runs there
// keeps the node going and needs the node's rights.
var systemNamespaces = []string{"kube-system", "bothy-system"}

//go:embed audit-policy.yaml
var auditPolicy []byte

// Audit returns the audit policy.
func Audit() []byte { return slices.Clone(auditPolicy) }

// Authentication returns the authentication configuration: without credentials
// only the health endpoints answer. They reveal nothing but health and must
// work for load balancers.
func Authentication() ([]byte, error) {
	type condition struct {
		Path string `json:"path"`
	}
	return encode(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		JWT        []any  `json:"jwt"`
		Anonymous  any    `json:"anonymous"`
	}{
		"apiserver.config.k8s.io/v1",
		"AuthenticationConfiguration",
		[]any{},
		map[string]any{
			"enabled":    true,
			"conditions": []condition{{"/livez"}, {"/readyz"}, {"/healthz"}},
		},
	})
}

// Admission returns the admission configuration with the cluster-wide defaults
// of Pod Security admission.
func Admission(spec v1alpha1.PodSecuritySpec) ([]byte, error) {
	namespaces := slices.Clone(systemNamespaces)
	for _, ns := range spec.ExemptNamespaces {
		if !slices.Contains(namespaces, ns) {
			namespaces = append(namespaces, ns)
		}
	}
	podSecurity := map[string]any{
		"apiVersion": "pod-security.admission.config.k8s.io/v1",
		"kind":       "PodSecurityConfiguration",
		"defaults": map[string]any{
			"enforce": spec.Enforce, "enforce-version": "latest",
			"warn": spec.Warn, "warn-version": "latest",
			"audit": spec.Audit, "audit-version": "latest",
		},
		"exemptions": map[string]any{"namespaces": namespaces},
	}
	return encode(map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "AdmissionConfiguration",
		"plugins":    []any{map[string]any{"name": "PodSecurity", "configuration": podSecurity}},
	})
}

func encode(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}
