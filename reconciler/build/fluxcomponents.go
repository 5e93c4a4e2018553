package build

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// FluxComponents is a [Options.Skip] that recognises what "flux install" and
// "flux bootstrap" put into a repository as gotk-components: Flux's controllers
// and the definitions of its API, which bothy serves itself. The namespace is
// kept, because other objects are in it.
func FluxComponents(u *unstructured.Unstructured) string {
	const reason = "bothy serves the Flux API itself"
	labels := u.GetLabels()
	switch {
	case u.GetKind() == "CustomResourceDefinition" && strings.HasSuffix(u.GetName(), ".toolkit.fluxcd.io"):
		return reason
	case labels["app.kubernetes.io/part-of"] != "flux" || labels["app.kubernetes.io/instance"] == "":
		return ""
	}
	switch u.GetKind() {
	case "Deployment", "Service", "ServiceAccount", "NetworkPolicy", "ResourceQuota",
		"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding":
		return reason
	}
	return ""
}
