package release

import (
	"context"
	"fmt"
	"strings"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	ssautil "github.com/fluxcd/pkg/ssa/utils"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// How long definitions may take until the API server serves their kinds.
const (
	crdTimeout = time.Minute
	crdPoll    = 100 * time.Millisecond
)

// applyCRDs brings the definitions of a chart's crds directory to the cluster,
// as the policy says, and waits until their kinds are served. The default is to
// create what is missing.
func (a *attempt) applyCRDs(ctx context.Context, c *chart.Chart, policy v2.CRDsPolicy) error {
	switch {
	case policy == v2.Skip || len(c.CRDObjects()) == 0:
		return nil
	case policy != "" && policy != v2.Create && policy != v2.CreateReplace:
		return fmt.Errorf("invalid CRD upgrade policy '%s', valid values are '%s', '%s' or '%s'",
			policy, v2.Skip, v2.Create, v2.CreateReplace)
	}
	// Dependencies that are not enabled bring no definitions.
	if err := util.ProcessDependencies(c, copyValues(a.want.values)); err != nil {
		return fmt.Errorf("process dependencies: %w", err)
	}
	definitions, err := a.definitions(c)
	if err != nil {
		return err
	}
	objects, err := a.cluster.objects()
	if err != nil {
		return err
	}
	var sent []*unstructured.Unstructured
	for _, definition := range definitions {
		changed, err := a.applyCRD(ctx, objects, definition, policy)
		if err != nil {
			return fmt.Errorf("%s: %w", definition.GetName(), err)
		}
		if changed {
			sent = append(sent, definition)
		}
	}
	return a.awaitCRDs(ctx, sent)
}

// definitions reads the chart's definitions. Other objects have no business in
// crds: they would be neither upgraded nor removed.
func (a *attempt) definitions(c *chart.Chart) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, crd := range c.CRDObjects() {
		objects, err := ssautil.ReadObjects(strings.NewReader(string(crd.File.Data)))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", crd.Filename, err)
		}
		for _, o := range objects {
			if !isKind(o, "apiextensions.k8s.io", "CustomResourceDefinition") {
				a.log.Warn("an object in the chart's crds directory is no definition and is left out; "+
					"it belongs into templates", "object", o.GetKind()+"/"+o.GetName(), "file", crd.Filename)
				continue
			}
			labels := o.GetLabels()
			if labels == nil {
				labels = map[string]string{}
			}
			for key, value := range originLabels(a.object) {
				labels[key] = value
			}
			o.SetLabels(labels)
			out = append(out, o)
		}
	}
	return out, nil
}

func (a *attempt) applyCRD(ctx context.Context, c client.Client, o *unstructured.Unstructured, policy v2.CRDsPolicy) (bool, error) {
	if policy == v2.CreateReplace {
		apply := client.ApplyConfigurationFromUnstructured(o)
		return true, c.Apply(ctx, apply, client.FieldOwner(fieldManager), client.ForceOwnership)
	}
	err := c.Create(ctx, o.DeepCopy(), client.FieldOwner(fieldManager))
	if apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	return err == nil, err
}

// awaitCRDs waits until the kinds of new definitions can be used.
func (a *attempt) awaitCRDs(ctx context.Context, sent []*unstructured.Unstructured) error {
	if len(sent) == 0 {
		return nil
	}
	var list kube.ResourceList
	for _, o := range sent {
		mapping, err := a.cluster.mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		if err != nil {
			return err
		}
		list = append(list, &resource.Info{Mapping: mapping, Name: o.GetName(), Object: o})
	}
	if err := a.waiter.with(kube.StatusWatcherStrategy).Wait(list, crdTimeout); err != nil {
		return err
	}
	// Capabilities asked for earlier do not name the new kinds.
	a.began = time.Now()
	for _, o := range sent {
		if err := a.awaitKind(ctx, o); err != nil {
			return fmt.Errorf("%s: its kind is not served although it is established: %w", o.GetName(), err)
		}
	}
	return nil
}

// awaitKind waits until discovery tells of a definition's kind, which it does a
// moment after it was established.
func (a *attempt) awaitKind(ctx context.Context, o *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
	return wait.PollUntilContextTimeout(ctx, crdPoll, crdTimeout, true, func(context.Context) (bool, error) {
		_, err := a.cluster.mapper.RESTMappings(schema.GroupKind{Group: group, Kind: kind})
		return err == nil, nil
	})
}
