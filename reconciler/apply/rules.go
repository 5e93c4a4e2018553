package apply

import (
	"fmt"

	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// rules are the options that have to be compiled.
type rules struct {
	ignore []ignoreRule
	health map[schema.GroupKind]*cel.StatusEvaluator
	// err says which option cannot be compiled.
	err error
}

type ignoreRule struct {
	target *jsondiff.SelectorRegex // nil for all objects
	paths  []string
}

func compileRules(o Options) rules {
	var r rules
	for i, rule := range o.Ignore {
		target, err := selector(rule)
		if err != nil {
			return rules{err: fmt.Errorf("ignore rule %d: %w", i+1, err)}
		}
		r.ignore = append(r.ignore, ignoreRule{target: target, paths: rule.Paths})
	}
	for i, expr := range o.HealthExprs {
		evaluator, err := cel.NewStatusEvaluator(&expr.HealthCheckExpressions)
		if err != nil {
			return rules{err: fmt.Errorf("health check expression %d (%s %s): %w", i+1, expr.APIVersion, expr.Kind, err)}
		}
		if r.health == nil {
			r.health = map[schema.GroupKind]*cel.StatusEvaluator{}
		}
		r.health[schema.FromAPIVersionAndKind(expr.APIVersion, expr.Kind).GroupKind()] = evaluator
	}
	return r
}

func selector(rule IgnoreRule) (*jsondiff.SelectorRegex, error) {
	t := rule.Target
	if t == nil {
		return nil, nil //nolint:nilnil // no selector selects everything
	}
	return jsondiff.NewSelectorRegex(&jsondiff.Selector{
		Group: t.Group, Version: t.Version, Kind: t.Kind, Name: t.Name, Namespace: t.Namespace,
		AnnotationSelector: t.AnnotationSelector, LabelSelector: t.LabelSelector,
	})
}

// ignored lists the pointers that are ignored in u.
func (r *rules) ignored(u *unstructured.Unstructured) []string {
	var out []string
	for _, rule := range r.ignore {
		if rule.target.MatchUnstructured(u) {
			out = append(out, rule.paths...)
		}
	}
	return out
}

// judges reports whether an expression decides on the health of the kind.
func (r *rules) judges(id ID) bool {
	return len(r.health) > 0 && r.health[id.groupKind()] != nil
}
