package release

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ensureChart keeps the HelmChart of spec.chart as the template says, and
// removes it when there is no template any more. It changes status.helmChart.
func (r *controller) ensureChart(ctx context.Context, object *v2.HelmRelease) error {
	name := types.NamespacedName{}
	if object.HasChartTemplate() && object.DeletionTimestamp.IsZero() {
		name = types.NamespacedName{Namespace: object.Spec.Chart.GetNamespace(object.Namespace), Name: object.GetHelmChartName()}
	}
	if object.Status.HelmChart != "" && object.Status.HelmChart != name.String() {
		if err := r.removeChart(ctx, object); err != nil {
			return err
		}
	}
	if name.Name == "" {
		return nil
	}
	if err := r.allowed(object, sourcev1.HelmChartKind, name.Namespace, name.Name); err != nil {
		return err
	}
	if err := r.applyChart(ctx, object, name); err != nil {
		return fmt.Errorf("apply HelmChart %s: %w", name, err)
	}
	object.Status.HelmChart = name.String()
	return nil
}

// applyChart sends the HelmChart if the one that is there lacks anything that
// the template says.
func (r *controller) applyChart(ctx context.Context, object *v2.HelmRelease, name types.NamespacedName) error {
	wanted := chartOf(object, name)
	there := new(sourcev1.HelmChart)
	err := r.client.Get(ctx, name, there)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err == nil && holds(there, wanted) {
		return nil
	}
	verb, reason := "created", "HelmChartCreated"
	if err == nil {
		verb, reason = "configured", "HelmChartConfigured"
	}
	encoded, err := json.Marshal(wanted)
	if err != nil {
		return err
	}
	sent := &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	if err := r.client.Patch(ctx, sent, client.RawPatch(types.ApplyPatchType, encoded), client.ForceOwnership, client.FieldOwner(owner)); err != nil {
		return err
	}
	r.env.Events.Event(object, eventv1.EventSeverityTrace, reason, fmt.Sprintf("%s HelmChart/%s with SourceRef '%s/%s/%s'",
		verb, name, wanted.Spec.SourceRef.Kind, name.Namespace, wanted.Spec.SourceRef.Name), nil)
	return nil
}

// appliedChart is a HelmChart as it is applied: without a status.
type appliedChart struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        appliedMeta            `json:"metadata"`
	Spec            sourcev1.HelmChartSpec `json:"spec"`
}

type appliedMeta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// chartOf builds the HelmChart of a release's template.
func chartOf(object *v2.HelmRelease, name types.NamespacedName) *appliedChart {
	template := object.Spec.Chart
	c := &appliedChart{
		TypeMeta: metav1.TypeMeta{APIVersion: sourcev1.GroupVersion.String(), Kind: sourcev1.HelmChartKind},
		Metadata: appliedMeta{Name: name.Name, Namespace: name.Namespace, Labels: map[string]string{}},
		Spec: sourcev1.HelmChartSpec{
			Chart: template.Spec.Chart, Version: template.Spec.Version,
			SourceRef: sourcev1.LocalHelmChartSourceReference{
				Kind: template.Spec.SourceRef.Kind, Name: template.Spec.SourceRef.Name,
			},
			Interval:          template.GetInterval(object.Spec.Interval),
			ReconcileStrategy: template.Spec.ReconcileStrategy, ValuesFiles: template.Spec.ValuesFiles,
			IgnoreMissingValuesFiles: template.Spec.IgnoreMissingValuesFiles,
		},
	}
	if v := template.Spec.Verify; v != nil {
		c.Spec.Verify = &sourcev1.HelmChartVerification{Provider: v.Provider, SecretRef: v.SecretRef}
	}
	if m := template.ObjectMeta; m != nil {
		c.Metadata.Annotations = m.Annotations
		maps.Copy(c.Metadata.Labels, m.Labels)
	}
	maps.Copy(c.Metadata.Labels, originLabels(object))
	return c
}

// holds tells whether a HelmChart is as the template says. What the API server
// fills in by default is not missing.
func holds(there *sourcev1.HelmChart, wanted *appliedChart) bool {
	spec := wanted.Spec
	if spec.Version == "" {
		spec.Version = there.Spec.Version
	}
	if spec.ReconcileStrategy == "" {
		spec.ReconcileStrategy = there.Spec.ReconcileStrategy
	}
	spec.Suspend = there.Spec.Suspend // flux suspend is not ours to undo
	spec.SourceRef.APIVersion = there.Spec.SourceRef.APIVersion
	return digestOf(spec) == digestOf(there.Spec) &&
		contains(there.Labels, wanted.Metadata.Labels) && contains(there.Annotations, wanted.Metadata.Annotations)
}

func contains(all, some map[string]string) bool {
	for key, value := range some {
		if got, ok := all[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// removeChart deletes the HelmChart that the status names.
func (r *controller) removeChart(ctx context.Context, object *v2.HelmRelease) error {
	namespace, name := object.Status.GetHelmChart()
	if name == "" {
		return nil
	}
	c := &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	err := r.client.Delete(ctx, c)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete HelmChart %s: %w", object.Status.HelmChart, err)
	}
	if err == nil {
		r.env.Events.Event(object, eventv1.EventSeverityTrace, "HelmChartDeleted",
			fmt.Sprintf("deleted HelmChart '%s'", object.Status.HelmChart), nil)
	}
	object.Status.HelmChart = ""
	return nil
}
