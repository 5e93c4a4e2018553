package kustomization

import (
	"context"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/cel"
	celtypes "github.com/google/cel-go/common/types"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// dependencies lists what k depends on.
func dependencies(k *kustomizev1.Kustomization) []types.NamespacedName {
	names := make([]types.NamespacedName, len(k.Spec.DependsOn))
	for i, ref := range k.Spec.DependsOn {
		names[i] = types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
		if ref.Namespace == "" {
			names[i].Namespace = k.Namespace
		}
	}
	return names
}

func dependencyKeys(k *kustomizev1.Kustomization) []string {
	var keys []string
	for _, name := range dependencies(k) {
		keys = append(keys, name.String())
	}
	return keys
}

// dependents finds the objects that may have waited for a change of o.
func (r *reconciler) dependents(ctx context.Context, o client.Object) []reconcile.Request {
	names := r.named(ctx, indexDependency, client.ObjectKeyFromObject(o).String())
	waiting := names[:0]
	for _, name := range names {
		// One that is done has nothing to wait for.
		if j := r.jobs.find(name); j == nil || !j.look().settled || !r.upToDate(j, name) {
			waiting = append(waiting, name)
		}
	}
	return requests(waiting)
}

// upToDate reports whether the job has the newest artifact.
func (r *reconciler) upToDate(j *job, name types.NamespacedName) bool {
	k := &kustomizev1.Kustomization{}
	if err := r.client.Get(context.Background(), name, k, client.UnsafeDisableDeepCopy); err != nil {
		return false
	}
	artifact := r.env.Store.Get(sourceKey(k))
	return artifact != nil && j.look().has(artifact)
}

// awaitDependencies says what of the dependencies is not ready for revision,
// with Flux's rules.
func (a *attempt) awaitDependencies(ctx context.Context, revision string) *problem {
	for i, name := range dependencies(a.obj) {
		if p := a.awaitDependency(ctx, a.obj.Spec.DependsOn[i], name, revision); p != nil {
			return p
		}
	}
	return nil
}

func (a *attempt) awaitDependency(ctx context.Context, ref kustomizev1.DependencyReference, name types.NamespacedName, revision string) *problem {
	if a.env.NoCrossNamespaceRefs && name.Namespace != a.obj.Namespace {
		return accessDenied(fmt.Sprintf("can't access 'Kustomization/%s', cross-namespace references have been blocked", name))
	}
	dep := &kustomizev1.Kustomization{}
	switch err := a.client.Get(ctx, name, dep); {
	case apierrors.IsNotFound(err):
		return notReady(fmt.Sprintf("dependency '%s' not found", name))
	case err != nil:
		return notReady(fmt.Sprintf("dependency '%s' cannot be read: %v", name, err))
	}
	// A job that is done may be ahead of the cache. In the other case the cache
	// has what the job is about to note; when it is behind, it calls again.
	applied := dep.Status.LastAppliedRevision
	if j := a.jobs.find(name); j != nil && j.uid == dep.UID {
		if p := j.look(); p.settled {
			dep.Status, applied = *p.status.DeepCopy(), p.revision
		}
	}
	if ref.ReadyExpr != "" {
		return a.evaluate(ctx, ref.ReadyExpr, name, dep)
	}
	switch {
	case len(dep.Status.Conditions) == 0, dep.Generation != dep.Status.ObservedGeneration,
		!apimeta.IsStatusConditionTrue(dep.Status.Conditions, meta.ReadyCondition):
		return notReady(fmt.Sprintf("dependency '%s' is not ready", name))
	case sourceKey(dep) == sourceKey(a.obj) && applied != revision:
		return notReady(fmt.Sprintf("dependency '%s' revision is not up to date", name))
	}
	return nil
}

// evaluate judges a dependency by the expression of the reference alone.
func (a *attempt) evaluate(ctx context.Context, expression string, name types.NamespacedName, dep *kustomizev1.Kustomization) *problem {
	compiled, err := cel.NewExpression(expression, cel.WithCompile(), cel.WithOutputType(celtypes.BoolType), cel.WithStructVariables("self", "dep"))
	if err != nil {
		return invalidExpression(fmt.Errorf("failed to evaluate dependency %s: %w", name.Name, err))
	}
	self, err := runtime.DefaultUnstructuredConverter.ToUnstructured(a.obj)
	if err != nil {
		return notReady(fmt.Sprintf("encode the object for readyExpr: %v", err))
	}
	other, err := runtime.DefaultUnstructuredConverter.ToUnstructured(dep)
	if err != nil {
		return notReady(fmt.Sprintf("encode dependency '%s' for readyExpr: %v", name, err))
	}
	ready, err := compiled.EvaluateBoolean(ctx, map[string]any{"self": self, "dep": other})
	switch {
	case err != nil:
		return notReady(fmt.Sprintf("dependency '%s': %v", name, err))
	case !ready:
		return notReady(fmt.Sprintf("dependency '%s' is not ready according to readyExpr eval", name))
	}
	return nil
}
