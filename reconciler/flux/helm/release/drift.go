package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"github.com/fluxcd/pkg/ssa/normalize"
	helm "helm.sh/helm/v4/pkg/release/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// driftMemory remembers of a release which objects were found to be as they
// should, and what they looked like then: as long as they look like that, they
// are not compared again.
type driftMemory struct {
	watches *watches // nil: every object is compared every time
	count   func(action string)

	mu    sync.Mutex
	clean map[objectName]string
	// known are differences that are only reported.
	known map[objectName]string
}

type objectName struct {
	kind            schema.GroupVersionResource
	namespace, name string
}

// unchanged tells whether all objects still look as they did when they were
// compared.
func (d *driftMemory) unchanged() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, was := range d.clean {
		if was == "" || d.watches == nil || d.watches.fingerprint(name.kind, name.namespace, name.name) != was {
			return false
		}
	}
	return true
}

func (d *driftMemory) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clean, d.known = nil, nil
}

// driftFinder is the drift of one release.
type driftFinder struct {
	*driftMemory
	release types.NamespacedName
}

// drift is what differs between a release and the cluster.
type drift struct {
	release *helm.Release
	changes jsondiff.DiffSet
}

// suspect is an object that may have been changed.
type suspect struct {
	name   objectName
	print  string
	object *unstructured.Unstructured
}

// examineDrift compares the objects of a release that is in sync, if the object
// asks for it, and decides whether there is something to correct.
func (a *attempt) examineDrift(ctx context.Context, s state, last *helm.Release) (planned, error) {
	mode := a.object.GetDriftDetection()
	if !mode.MustDetectChanges() {
		conditions.Delete(a.object, v2.DriftedCondition)
		a.drift.reset()
		if a.drift.watches != nil {
			a.drift.watches.follow(a.drift.release, nil)
		}
		return planned{state: s}, nil
	}
	suspects, err := a.suspects(last)
	if err != nil {
		return planned{}, err
	}
	changes, err := a.compare(ctx, suspects)
	if err != nil {
		return planned{}, fmt.Errorf("unable to determine cluster state: %w", err)
	}
	if message := a.rememberDrift(suspects, changes); message != "" {
		return a.drifted(s, last, changes, message), nil
	}
	if !conditions.IsFalse(a.object, v2.DriftedCondition) {
		conditions.MarkFalse(a.object, v2.DriftedCondition, v2.NoDriftDetectedReason, "No drift detected against the cluster state")
	}
	return planned{state: s}, nil
}

// drifted reports drift, once, and has it corrected if that is wanted.
func (a *attempt) drifted(s state, last *helm.Release, changes jsondiff.DiffSet, what string) planned {
	current := a.object.Status.History.Latest()
	message := fmt.Sprintf("Cluster state of release %s has drifted from the desired state:\n%s", current.FullReleaseName(), what)
	if conditions.GetMessage(a.object, v2.DriftedCondition) != message || !conditions.IsTrue(a.object, v2.DriftedCondition) {
		a.tell(eventv1.EventSeverityError, v2.DriftDetectedReason, message, current)
		conditions.MarkTrue(a.object, v2.DriftedCondition, v2.DriftDetectedReason, "%s", message)
	}
	if a.object.GetDriftDetection().GetMode() != v2.DriftDetectionEnabled {
		return planned{state: s}
	}
	return planned{step: stepCorrect, state: state{inSync, "the cluster has drifted"}, drift: &drift{last, changes}}
}

// suspects lists the objects of a release that do not look as they did when they
// were last compared, and has all of them watched.
func (a *attempt) suspects(last *helm.Release) ([]suspect, error) {
	objects, err := objectsOf(last, a.cluster.mapper)
	if err != nil {
		return nil, err
	}
	if err := normalize.UnstructuredList(objects); err != nil {
		return nil, fmt.Errorf("normalize the objects of the release: %w", err)
	}
	var all []suspect
	for _, o := range objects {
		setOwnership(o, last)
		gvk := o.GroupVersionKind()
		mapping, err := a.cluster.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", gvk.Kind, o.GetName(), err)
		}
		all = append(all, suspect{name: objectName{mapping.Resource, o.GetNamespace(), o.GetName()}, object: o})
	}
	return a.drift.filter(all), nil
}

// filter leaves those that have to be compared.
func (d driftFinder) filter(all []suspect) []suspect {
	if d.watches == nil {
		return all
	}
	kinds := map[schema.GroupVersionResource]bool{}
	for _, s := range all {
		kinds[s.name.kind] = true
	}
	var list []schema.GroupVersionResource
	for kind := range kinds {
		list = append(list, kind)
	}
	d.watches.follow(d.release, list)
	d.mu.Lock()
	defer d.mu.Unlock()
	var left []suspect
	for _, s := range all {
		s.print = d.watches.fingerprint(s.name.kind, s.name.namespace, s.name.name)
		if s.print == "" || d.clean[s.name] != s.print {
			left = append(left, s)
		}
	}
	return left
}

// setOwnership puts on an object what Helm puts on it when it applies it.
func setOwnership(o *unstructured.Unstructured, r *helm.Release) {
	labels, annotations := o.GetLabels(), o.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels["app.kubernetes.io/managed-by"] = "Helm"
	annotations["meta.helm.sh/release-name"] = r.Name
	annotations["meta.helm.sh/release-namespace"] = r.Namespace
	o.SetLabels(labels)
	o.SetAnnotations(annotations)
}

// compare asks the API server what applying the objects would change.
func (a *attempt) compare(ctx context.Context, suspects []suspect) (jsondiff.DiffSet, error) {
	if len(suspects) == 0 {
		return nil, nil
	}
	c, err := a.cluster.objects()
	if err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, len(suspects))
	for i, s := range suspects {
		objects[i] = s.object
	}
	options := []jsondiff.ListOption{
		jsondiff.FieldOwner(fieldManager), jsondiff.Rationalize(true), jsondiff.Graceful(true),
		jsondiff.ExclusionSelector{v2.DriftDetectionMetadataKey: v2.DriftDetectionDisabledValue},
	}
	if rules := ignoreRules(a.object); len(rules) > 0 {
		options = append(options, rules)
	}
	changes, err := jsondiff.UnstructuredList(ctx, c, objects, options...)
	if err != nil && !changes.HasChanges() {
		return nil, err
	}
	if err != nil {
		a.log.Warn("some objects of the release could not be compared with the cluster", "error", err)
	}
	return changes, nil
}

func ignoreRules(object *v2.HelmRelease) jsondiff.IgnoreRules {
	var rules jsondiff.IgnoreRules
	for _, rule := range object.GetDriftDetection().Ignore {
		r := jsondiff.IgnoreRule{Paths: rule.Paths}
		if t := rule.Target; t != nil {
			r.Selector = &jsondiff.Selector{
				Group: t.Group, Version: t.Version, Kind: t.Kind, Name: t.Name, Namespace: t.Namespace,
				AnnotationSelector: t.AnnotationSelector, LabelSelector: t.LabelSelector,
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// rememberDrift notes which suspects are as they should be, and returns what is
// to be said about all that are not.
func (a *attempt) rememberDrift(suspects []suspect, changes jsondiff.DiffSet) string {
	differs := map[string]string{}
	for _, change := range changes {
		if change.Type == jsondiff.DiffTypeCreate || change.Type == jsondiff.DiffTypeUpdate {
			differs[changeID(change.DesiredObject)] = describe(change)
		}
	}
	d := a.drift
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.clean == nil {
		d.clean, d.known = map[objectName]string{}, map[objectName]string{}
	}
	for _, s := range suspects {
		what, different := differs[changeID(s.object)]
		delete(d.known, s.name)
		if different {
			d.known[s.name] = what
		}
		// Drift that is to be corrected is looked at again after that.
		if !different || a.object.GetDriftDetection().GetMode() == v2.DriftDetectionWarn {
			d.clean[s.name] = s.print
		} else {
			delete(d.clean, s.name)
		}
	}
	var lines []string
	for _, what := range d.known {
		lines = append(lines, what)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func changeID(o client.Object) string {
	return o.GetObjectKind().GroupVersionKind().GroupKind().String() + "/" + o.GetNamespace() + "/" + o.GetName()
}

// describe says what happened to an object, and who did it, as far as the object
// tells.
func describe(change *jsondiff.Diff) string {
	name := change.DesiredObject.GetObjectKind().GroupVersionKind().Kind + "/"
	if ns := change.GetNamespace(); ns != "" {
		name += ns + "/"
	}
	name += change.GetName()
	if change.Type == jsondiff.DiffTypeCreate {
		return name + " removed"
	}
	added, replaced, removed := 0, 0, 0
	for _, operation := range change.Patch {
		switch operation.Type {
		case "add":
			added++
		case "remove":
			removed++
		default:
			replaced++
		}
	}
	text := fmt.Sprintf("%s changed (%d additions, %d changes, %d removals)", name, added, replaced, removed)
	if who := lastManager(change.ClusterObject); who != "" {
		text += " by " + who
	}
	return text
}

// lastManager returns who else wrote to an object last.
func lastManager(o client.Object) string {
	if o == nil {
		return ""
	}
	var last *metav1.ManagedFieldsEntry
	for i, entry := range o.GetManagedFields() {
		foreign := entry.Manager != fieldManager && entry.Subresource == "" && entry.Time != nil
		if foreign && (last == nil || !entry.Time.Before(last.Time)) {
			last = &o.GetManagedFields()[i]
		}
	}
	if last == nil {
		return ""
	}
	return last.Manager
}

// correct makes the cluster what the release says again. What cannot be
// corrected is reported, and found again when it is next looked at.
func (a *attempt) correct(ctx context.Context, d *drift) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout(stepCorrect))
	defer cancel()
	conditions.MarkUnknown(a.object, meta.ReadyCondition, meta.ProgressingReason, "correcting cluster drift")
	defer summarize(a.object)
	c, err := a.cluster.objects()
	if err != nil {
		return err
	}
	var done []string
	var problems []error
	for _, change := range d.changes {
		verb, err := a.correctObject(ctx, c, d.release, change)
		name := changeName(change)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		case verb != "":
			done = append(done, name+" "+verb)
			a.drift.count(verb)
		}
	}
	a.reportCorrection(done, errors.Join(problems...))
	return nil
}

func changeName(change *jsondiff.Diff) string {
	name := change.DesiredObject.GetObjectKind().GroupVersionKind().Kind + "/"
	if ns := change.GetNamespace(); ns != "" {
		name += ns + "/"
	}
	return name + change.GetName()
}

// correctObject undoes one change. Where rules say what to leave alone, only
// what differs is written; where the release was applied server-side and there
// are no such rules, it is applied again, which also takes the fields back.
func (a *attempt) correctObject(ctx context.Context, c client.Client, r *helm.Release, change *jsondiff.Diff) (verb string, err error) {
	desired, ok := change.DesiredObject.DeepCopyObject().(*unstructured.Unstructured)
	if !ok {
		return "", nil
	}
	serverSide := r.ApplyMethod == string(helm.ApplyMethodServerSideApply)
	switch {
	case change.Type == jsondiff.DiffTypeCreate:
		return "created", secretive(desired, c.Create(ctx, desired, client.FieldOwner(fieldManager)))
	case change.Type != jsondiff.DiffTypeUpdate:
		return "", nil
	case serverSide && len(a.object.GetDriftDetection().Ignore) == 0:
		apply := client.ApplyConfigurationFromUnstructured(desired)
		return "configured", secretive(desired, c.Apply(ctx, apply, client.FieldOwner(fieldManager), client.ForceOwnership))
	}
	patch, err := json.Marshal(change.Patch)
	if err != nil {
		return "", err
	}
	return "configured", secretive(desired, c.Patch(ctx, desired, client.RawPatch(types.JSONPatchType, patch), client.FieldOwner(fieldManager)))
}

// secretive keeps what the API server says about a Secret, which may quote it,
// out of messages.
func secretive(o *unstructured.Unstructured, err error) error {
	if err == nil || !isKind(o, "", "Secret") {
		return err
	}
	return errors.New("the API server refused it; the reason may contain its content and is not shown")
}

func (a *attempt) reportCorrection(done []string, problem error) {
	current := a.object.Status.History.Latest()
	list := strings.Join(done, "\n")
	switch {
	case problem != nil && len(done) > 0:
		a.tell(eventv1.EventSeverityError, "DriftCorrectionFailed", fmt.Sprintf(
			"Failed to partially correct cluster state of release %s:\n%s\n\nSuccessful corrections:\n%s",
			current.FullReleaseName(), problem, list), current)
	case problem != nil:
		a.tell(eventv1.EventSeverityError, "DriftCorrectionFailed", fmt.Sprintf(
			"Failed to correct cluster state of release %s:\n%s", current.FullReleaseName(), problem), current)
	case len(done) > 0:
		a.tell(eventv1.EventSeverityInfo, "DriftCorrected", fmt.Sprintf(
			"Cluster state of release %s has been corrected:\n%s", current.FullReleaseName(), list), current)
	}
}
