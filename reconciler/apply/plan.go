package apply

import (
	"context"
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// PlannedChange is what a Sync would do with one object.
type PlannedChange struct {
	ID     ID     `json:"object"`
	Action Action `json:"action"`
	// Problem says why it would fail, or would not be done.
	Problem string `json:"problem,omitempty"`
	// Diff is what would change, as the lines of a unified diff of YAML.
	Diff string `json:"diff,omitempty"`
	// Live is the object in the cluster, Merged what it would become; nil if there
	// is none. Both are without what the server adds to metadata, and without
	// values of Secrets, which only say whether they change.
	Live   *unstructured.Unstructured `json:"-"`
	Merged *unstructured.Unstructured `json:"-"`
}

// Plan tells what Sync would do, by a dry run of every object on the server. It
// changes nothing. Objects whose namespace or kind is among the wanted ones and
// does not exist yet are reported as created, unseen by the server. An error
// (ErrUnavailable, ctx's) means that there is no plan.
func (e *Engine) Plan(ctx context.Context) ([]PlannedChange, error) {
	record, err := e.o.Store.Load(ctx)
	if err != nil {
		return nil, err
	}
	p := &planner{Engine: e, kinds: map[ID]bool{}, namespaces: map[string]bool{}}
	p.expect()
	if err := p.place(ctx); err != nil {
		return nil, err
	}
	plans := make(map[*object]*PlannedChange, len(p.order))
	for _, o := range p.order {
		plans[o] = &PlannedChange{ID: o.id}
	}
	if err := each(ctx, p.order, func(ctx context.Context, o *object) error { return p.try(ctx, o, plans[o]) }); err != nil {
		return nil, err
	}
	out := make([]PlannedChange, 0, len(p.order))
	for _, o := range p.order {
		out = append(out, *plans[o])
	}
	return p.deletions(ctx, record, out)
}

// planner is one plan under way. It works on copies: a plan leaves no trace in
// the engine.
type planner struct {
	*Engine
	order []*object
	// What the wanted objects bring about.
	kinds      map[ID]bool // group and kind
	namespaces map[string]bool
}

// expect finds out which kinds and namespaces the objects define.
func (p *planner) expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.Engine.order {
		p.order = append(p.order, &object{id: o.id, res: o.res, body: o.body, digest: o.digest, stage: o.stage, policy: o.policy, ignored: o.ignored, left: o.left})
		switch {
		case isDefinition(o.id):
			if id, ok := definedBy(o.body); ok {
				p.kinds[id] = true
			}
		case o.id.Kind == "Namespace" && o.id.Group == "":
			p.namespaces[o.id.Name] = true
		}
	}
}

// place finds where the objects live.
func (p *planner) place(ctx context.Context) error {
	for _, o := range p.order {
		if o.res != nil {
			continue
		}
		r, err := p.client.kinds.resource(ctx, o.id.gvk())
		switch {
		case err == nil:
			o.place(r)
		case !errors.Is(err, errNoKind):
			return err
		}
	}
	return nil
}

// try plans one object.
func (p *planner) try(ctx context.Context, o *object, plan *PlannedChange) error {
	plan.ID = o.id
	if o.policy.skip || o.left {
		plan.Action, plan.Problem = Skipped, "is annotated to be left alone"
		return nil
	}
	if o.res == nil {
		p.unseen(o, plan, p.kinds[ID{Group: o.id.Group, Kind: o.id.Kind}], failureOfKind(o.id))
		return nil
	}
	live, err := p.client.get(ctx, o.res, o.id.Namespace, o.id.Name, whole)
	if err != nil && !apierrors.IsNotFound(err) {
		return p.refused(ctx, plan, err)
	}
	if live != nil && isLeft(live) || live != nil && o.policy.ifNotPresent {
		plan.Action = Skipped
		return nil
	}
	merged, err := p.dryRun(ctx, o)
	if apierrors.IsNotFound(err) && p.namespaces[o.id.Namespace] {
		p.unseen(o, plan, true, nil)
		return nil
	}
	if isImmutable(err) && o.policy.force {
		plan.Problem = "an immutable field changes: the object would be deleted and created anew"
		merged, err = bodyObject(o.body), nil
	}
	if err != nil {
		plan.Action = Configured
		if live == nil {
			plan.Action = Created
		}
		return p.refused(ctx, plan, err)
	}
	plan.compare(live, merged)
	return nil
}

func (p *planner) dryRun(ctx context.Context, o *object) (*unstructured.Unstructured, error) {
	body, err := p.bodyOf(ctx, o)
	if err != nil {
		return nil, err
	}
	merged, _, err := p.client.patch(ctx, o.res, o.id.Namespace, o.id.Name, body, patching{kind: types.ApplyPatchType, dryRun: true})
	return merged, err
}

// refused takes note of what the server says against an object.
func (p *planner) refused(ctx context.Context, plan *PlannedChange, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := unavailable(err); errors.Is(err, ErrUnavailable) {
		return err
	}
	plan.fail(failureOf(plan.ID, err))
	return nil
}

func (c *PlannedChange) fail(f *Failure) {
	c.Problem = f.Problem
	if f.Remedy != "" {
		c.Problem += "; " + f.Remedy
	}
}

// unseen plans an object that the server cannot judge yet.
func (p *planner) unseen(o *object, plan *PlannedChange, expected bool, otherwise *Failure) {
	plan.compare(nil, bodyObject(o.body))
	if !expected {
		plan.fail(otherwise)
	}
}

// compare fills in what changes from live to merged.
func (c *PlannedChange) compare(live, merged *unstructured.Unstructured) {
	c.Live, c.Merged = maskPair(presentable(live), presentable(merged))
	c.Diff = diffOf(c.Live, c.Merged)
	switch {
	case live == nil:
		c.Action = Created
	case merged == nil:
		c.Action = Deleted
	case c.Diff == "":
		c.Action = Unchanged
	default:
		c.Action = Configured
	}
}

// deletions adds what would be deleted, with the guard's verdict.
func (p *planner) deletions(ctx context.Context, record Record, plans []PlannedChange) ([]PlannedChange, error) {
	wanted := make(map[ID]bool, len(p.order))
	for _, o := range p.order {
		wanted[o.id.key()] = true
	}
	stale := slices.DeleteFunc(slices.Clone(record.Objects), func(id ID) bool { return wanted[id.key()] })
	if !p.o.Prune || len(stale) == 0 {
		return plans, nil
	}
	sortForDeletion(stale)
	verdict := ""
	if refusal := p.guard(record, stale); refusal != nil {
		verdict = refusal.Problem + "; " + refusal.Remedy
	}
	for _, id := range stale {
		plan, err := p.deletion(ctx, id)
		if err != nil {
			return nil, err
		}
		if plan == nil {
			continue
		}
		if plan.Action == Deleted && plan.Problem == "" {
			plan.Problem = verdict
		}
		plans = append(plans, *plan)
	}
	return plans, nil
}

// deletion plans the end of one object; nil if it is not there.
func (p *planner) deletion(ctx context.Context, id ID) (*PlannedChange, error) {
	r, err := p.client.kinds.anyVersion(ctx, id.gvk())
	if errors.Is(err, errNoKind) {
		return nil, nil //nolint:nilnil // nothing is planned
	}
	if err != nil {
		return nil, err
	}
	live, err := p.client.get(ctx, r, id.Namespace, id.Name, whole)
	plan := &PlannedChange{ID: id, Action: Deleted}
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // nothing is planned
	case err != nil:
		return plan, p.refused(ctx, plan, err)
	case !p.o.owns(live.GetLabels()):
		return &PlannedChange{ID: id, Action: Skipped, Problem: "left Git but is not ours any more, kept"}, nil
	case isToStay(live.GetAnnotations()):
		return &PlannedChange{ID: id, Action: Skipped, Problem: "left Git but is annotated to stay"}, nil
	}
	plan.compare(live, nil)
	return plan, nil
}

func isLeft(live *unstructured.Unstructured) bool {
	return live.GetAnnotations()[ReconcileAnnotation] == disabled
}
