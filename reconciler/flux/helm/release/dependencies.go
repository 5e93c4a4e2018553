package release

import (
	"context"
	"errors"
	"fmt"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/runtime/conditions"
	celtypes "github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errExpression is in the chain of errors about expressions that do not compile.
var errExpression = errors.New("invalid expression")

// dependenciesReady returns an error that names the first dependency which is
// not ready. A change of any of them has the release looked at again.
func (r *controller) dependenciesReady(ctx context.Context, object *v2.HelmRelease) error {
	for _, reference := range object.Spec.DependsOn {
		name := dependencyName(object, reference)
		if err := r.allowed(object, v2.HelmReleaseKind, name.Namespace, name.Name); err != nil {
			return err
		}
		dependency := new(v2.HelmRelease)
		if err := r.client.Get(ctx, name, dependency); err != nil {
			return fmt.Errorf("unable to get '%s' dependency: %w", name, err)
		}
		if err := ready(ctx, object, reference, dependency); err != nil {
			return err
		}
	}
	return nil
}

func dependencyName(object *v2.HelmRelease, reference v2.DependencyReference) types.NamespacedName {
	name := types.NamespacedName{Namespace: reference.Namespace, Name: reference.Name}
	if name.Namespace == "" {
		name.Namespace = object.Namespace
	}
	return name
}

// ready judges a dependency by its expression if it has one, and else by its
// condition.
func ready(ctx context.Context, object *v2.HelmRelease, reference v2.DependencyReference, dependency *v2.HelmRelease) error {
	name := client.ObjectKeyFromObject(dependency)
	if reference.ReadyExpr != "" {
		ok, err := evaluate(ctx, reference.ReadyExpr, object, dependency)
		if err != nil {
			return fmt.Errorf("dependency '%s': %w", name, err)
		}
		if !ok {
			return fmt.Errorf("dependency '%s' is not ready according to readyExpr eval", name)
		}
		return nil
	}
	if dependency.Generation != dependency.Status.ObservedGeneration || !conditions.IsTrue(dependency, meta.ReadyCondition) {
		return fmt.Errorf("dependency '%s' is not ready", name)
	}
	return nil
}

func evaluate(ctx context.Context, expression string, object, dependency *v2.HelmRelease) (bool, error) {
	compiled, err := cel.NewExpression(expression, cel.WithCompile(), cel.WithOutputType(celtypes.BoolType),
		cel.WithStructVariables("self", "dep"))
	if err != nil {
		return false, fmt.Errorf("%w: %w", errExpression, err)
	}
	self, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return false, err
	}
	dep, err := runtime.DefaultUnstructuredConverter.ToUnstructured(dependency)
	if err != nil {
		return false, err
	}
	return compiled.EvaluateBoolean(ctx, map[string]any{"self": self, "dep": dep})
}
