package podimages

import (
	"context"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/kubernetes/pkg/apis/core"
)

// Name is the plugin's name in the API server's lists of plugins.
const Name = "BothyImages"

// before is the plugin that ours runs in front of: all that mutates pods has
// done so by then.
const before = "ValidatingAdmissionPolicy"

// Func says what to run instead of an image, or why it may not run.
type Func func(ctx context.Context, image string) (string, error)

// Add puts the plugin among those of an API server that are on by default.
func Add(o *genericoptions.AdmissionOptions, ask Func) error {
	at := slices.Index(o.RecommendedPluginOrder, before)
	if at < 0 {
		return fmt.Errorf("this API server has no admission plugin %s", before)
	}
	o.Plugins.Register(Name, func(io.Reader) (admission.Interface, error) {
		return &plugin{Handler: admission.NewHandler(admission.Create, admission.Update), ask: ask}, nil
	})
	// The order is a list of upstream's that others share.
	o.RecommendedPluginOrder = slices.Insert(slices.Clone(o.RecommendedPluginOrder), at, Name)
	return nil
}

type plugin struct {
	*admission.Handler
	ask Func
}

var (
	_ admission.MutationInterface   = (*plugin)(nil)
	_ admission.ValidationInterface = (*plugin)(nil)
)

// Admit replaces names.
func (p *plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return p.each(ctx, a, func(image *string, instead string) { *image = instead })
}

// Validate asks again about what came of the pod after all mutations.
func (p *plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return p.each(ctx, a, func(*string, string) {})
}

func (p *plugin) each(ctx context.Context, a admission.Attributes, answer func(image *string, instead string)) error {
	pod := podOf(a)
	if pod == nil {
		return nil
	}
	known := map[string]bool{}
	if old, ok := a.GetOldObject().(*core.Pod); ok && a.GetOperation() == admission.Update {
		for _, i := range imagesOf(old) {
			known[*i.name] = true
		}
	}
	for _, i := range imagesOf(pod) {
		if *i.name == "" || known[*i.name] {
			continue
		}
		instead, err := p.ask(ctx, *i.name)
		if err != nil {
			return admission.NewForbidden(a, fmt.Errorf("%s: %w", i.field, err))
		}
		answer(i.name, instead)
	}
	return nil
}

// podOf returns the pod that is made or changed; nil if the request is not about
// its images. The API server's copy of a static pod tells what runs already.
func podOf(a admission.Attributes) *core.Pod {
	if a.GetResource().GroupResource() != core.Resource("pods") {
		return nil
	}
	switch a.GetSubresource() {
	case "", "ephemeralcontainers":
	default:
		return nil
	}
	pod, ok := a.GetObject().(*core.Pod)
	if !ok || pod.Annotations[corev1.MirrorPodAnnotationKey] != "" {
		return nil
	}
	return pod
}

// named is an image and where the pod names it.
type named struct {
	name  *string
	field string
}

func imagesOf(pod *core.Pod) []named {
	var out []named
	s := &pod.Spec
	for i := range s.InitContainers {
		out = append(out, named{&s.InitContainers[i].Image, fmt.Sprintf("spec.initContainers[%d].image", i)})
	}
	for i := range s.Containers {
		out = append(out, named{&s.Containers[i].Image, fmt.Sprintf("spec.containers[%d].image", i)})
	}
	for i := range s.EphemeralContainers {
		out = append(out, named{&s.EphemeralContainers[i].Image, fmt.Sprintf("spec.ephemeralContainers[%d].image", i)})
	}
	for i := range s.Volumes {
		if v := s.Volumes[i].Image; v != nil {
			out = append(out, named{&v.Reference, fmt.Sprintf("spec.volumes[%d].image.reference", i)})
		}
	}
	return out
}
