package apply

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The stages of an apply. Within a stage objects are sent in parallel; a stage
// starts when all objects of the one before were tried.
const (
	stageDefinitions = iota // CRDs and namespaces: others need them to exist
	stageClasses            // *Class kinds, which workloads are defaulted from
	stageConfig             // accounts, permissions, configuration, services
	stageWorkloads          // everything else
	stageWebhooks           // last, so that they do not get in the way of the rest
	stages
)

var configKinds = map[schema.GroupKind]bool{
	{Kind: "ServiceAccount"}:        true,
	{Kind: "ConfigMap"}:             true,
	{Kind: "Secret"}:                true,
	{Kind: "Service"}:               true,
	{Kind: "ResourceQuota"}:         true,
	{Kind: "LimitRange"}:            true,
	{Kind: "PersistentVolume"}:      true,
	{Kind: "PersistentVolumeClaim"}: true,
}

func stageOf(gvk schema.GroupVersionKind) int {
	switch {
	case gvk.Group == "apiextensions.k8s.io", gvk.GroupKind() == schema.GroupKind{Kind: "Namespace"}:
		return stageDefinitions
	case strings.HasSuffix(gvk.Kind, "Class"):
		return stageClasses
	case gvk.Group == "rbac.authorization.k8s.io", configKinds[gvk.GroupKind()]:
		return stageConfig
	case gvk.Group == "admissionregistration.k8s.io":
		return stageWebhooks
	}
	return stageWorkloads
}

func isDefinition(id ID) bool {
	return id.Group == "apiextensions.k8s.io" && id.Kind == "CustomResourceDefinition"
}
