package apply

import (
	"log/slog"
	"maps"

	"github.com/fluxcd/pkg/apis/kustomize"
)

// Options say how an engine treats its objects.
type Options struct {
	// Name is the value of InventoryLabel on every object.
	Name string
	// Labels are set on every object besides. An object is deleted only while it
	// carries Name and all of these.
	Labels map[string]string
	// Store is where the inventory is kept.
	Store InventoryStore
	// Hub tells what happens to the objects. Without one the engine learns it
	// from Refresh only, as is right for clusters that are not our own.
	Hub *Hub
	// Notify is called when an object drifted or its health moved: Sync and
	// Health have something to do. It is called from any goroutine, once until
	// the next Sync or Health, and must not block.
	Notify func()
	// Force deletes and creates anew an object of which an immutable field
	// changed. ForceAnnotation does so for one object.
	Force bool
	// Prune deletes what left the set. Without it such objects stay and are
	// forgotten.
	Prune bool
	// Guard refuses to delete more than half of the objects, or all, unless
	// Desired.AllowPrune says that a commit allowed it.
	Guard bool
	// Ignore lists fields that others may set: they keep the value they have in
	// the cluster.
	Ignore []IgnoreRule
	// HealthExprs judge the health of kinds in place of kstatus.
	HealthExprs []HealthExpr
	// Extra are further objects, ours or not, whose health counts.
	Extra []ID
	// Wait makes the health of all objects count; otherwise only that of Extra.
	Wait bool
	// Self is the object, if it is in the set, whose health says how healthy the
	// set is. It does not count: it would wait for itself.
	Self ID
	Log  *slog.Logger
}

// IgnoreRule excludes fields from what is applied and from drift: JSON pointers
// (RFC 6901) in the objects that Target selects, in all if it is nil. It has the
// shape of Flux's spec.ignore.
type IgnoreRule struct {
	Paths  []string
	Target *kustomize.Selector
}

// HealthExpr is one of Flux's spec.healthCheckExprs: CEL expressions that judge
// the objects of a kind.
type HealthExpr = kustomize.CustomHealthCheck

// What is set on every object, and what operators may set on single ones.
const (
	// InventoryLabel marks the objects of an inventory; its value is the
	// inventory's name.
	InventoryLabel = "bothy.dev/inventory"
	// PruneAnnotation with the value "disabled" keeps an object that left Git.
	PruneAnnotation = "bothy.dev/prune"
	// FluxPruneAnnotation is PruneAnnotation by Flux's name.
	FluxPruneAnnotation = "kustomize.toolkit.fluxcd.io/prune"
	// ReconcileAnnotation with the value "disabled", in Git or in the cluster,
	// leaves the object alone.
	ReconcileAnnotation = "kustomize.toolkit.fluxcd.io/reconcile"
	// ForceAnnotation with the value "enabled" is Options.Force for one object.
	ForceAnnotation = "kustomize.toolkit.fluxcd.io/force"
	// PolicyAnnotation says how an object is applied: Override (the default; what
	// kubectl added is removed), Merge (it is kept), IfNotPresent, Ignore.
	PolicyAnnotation = "kustomize.toolkit.fluxcd.io/ssa"
)

// Values of the annotations.
const (
	disabled           = "disabled"
	enabled            = "enabled"
	policyMerge        = "Merge"
	policyIfNotPresent = "IfNotPresent"
	policyIgnore       = "Ignore"
)

// marks are the labels that every object of the engine carries.
func (o *Options) marks() map[string]string {
	out := maps.Clone(o.Labels)
	if out == nil {
		out = make(map[string]string, 1)
	}
	out[InventoryLabel] = o.Name
	return out
}

// owns reports whether an object with these labels is the engine's to delete.
func (o *Options) owns(labels map[string]string) bool {
	for key, value := range o.Labels {
		if labels[key] != value {
			return false
		}
	}
	return labels[InventoryLabel] == o.Name
}
