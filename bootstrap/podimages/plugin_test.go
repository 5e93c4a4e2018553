package podimages

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/pkg/apis/core"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
)

// pin gives every image a digest, and refuses what is evil.
func pin(_ context.Context, image string) (string, error) {
	if strings.HasPrefix(image, "evil") {
		return "", errors.New("it is not signed")
	}
	return image + "@sha256:0", nil
}

func pod(images ...string) *core.Pod {
	p := &core.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}}
	for _, i := range images {
		p.Spec.Containers = append(p.Spec.Containers, core.Container{Image: i})
	}
	return p
}

func request(object, old runtime.Object, subresource string) admission.Attributes {
	operation := admission.Create
	if old != nil {
		operation = admission.Update
	}
	return admission.NewAttributesRecord(object, old, core.Kind("Pod").WithVersion("v1"), "n", "p", core.Resource("pods").WithVersion("v1"), subresource, operation, nil, false, nil)
}

func newPlugin(t *testing.T) *plugin {
	t.Helper()
	o := kubeoptions.NewAdmissionOptions()
	before := len(o.GenericAdmission.RecommendedPluginOrder)
	if err := Add(o.GenericAdmission, pin); err != nil {
		t.Fatal(err)
	}
	if problems := o.GenericAdmission.Validate(); len(problems) > 0 {
		t.Fatal(problems)
	}
	if len(kubeoptions.AllOrderedPlugins) != before {
		t.Error("upstream's list was changed")
	}
	i, err := o.GenericAdmission.Plugins.InitPlugin(Name, nil, admission.PluginInitializers{})
	if err != nil {
		t.Fatal(err)
	}
	return i.(*plugin)
}

func TestEveryImageIsAskedAbout(t *testing.T) {
	p := newPlugin(t)
	all := pod("a")
	all.Spec.InitContainers = []core.Container{{Image: "b"}}
	all.Spec.EphemeralContainers = []core.EphemeralContainer{{EphemeralContainerCommon: core.EphemeralContainerCommon{Image: "c"}}}
	all.Spec.Volumes = []core.Volume{{}, {VolumeSource: core.VolumeSource{Image: &core.ImageVolumeSource{Reference: "d"}}}}
	if err := p.Admit(t.Context(), request(all, nil, ""), nil); err != nil {
		t.Fatal(err)
	}
	for i, n := range imagesOf(all) {
		if want := []string{"b", "a", "c", "d"}[i] + "@sha256:0"; *n.name != want {
			t.Errorf("%s is %s, want %s", n.field, *n.name, want)
		}
	}
	for field, change := range map[string]func(*core.Pod){
		"spec.containers[0].image":          func(p *core.Pod) { p.Spec.Containers[0].Image = "evil" },
		"spec.initContainers[0].image":      func(p *core.Pod) { p.Spec.InitContainers[0].Image = "evil" },
		"spec.ephemeralContainers[0].image": func(p *core.Pod) { p.Spec.EphemeralContainers[0].Image = "evil" },
		"spec.volumes[1].image.reference":   func(p *core.Pod) { p.Spec.Volumes[1].Image.Reference = "evil" },
	} {
		bad := all.DeepCopy()
		change(bad)
		for _, ask := range []func(context.Context, admission.Attributes, admission.ObjectInterfaces) error{p.Admit, p.Validate} {
			if err := ask(t.Context(), request(bad, nil, ""), nil); err == nil || !strings.Contains(err.Error(), field+": it is not signed") {
				t.Errorf("%s: %v", field, err)
			}
		}
	}
}

func TestValidateChangesNothing(t *testing.T) {
	p, object := newPlugin(t), pod("a")
	if err := p.Validate(t.Context(), request(object, nil, ""), nil); err != nil || object.Spec.Containers[0].Image != "a" {
		t.Errorf("%v, %+v", err, object.Spec)
	}
}

// TestPodsThatExist: what does not change is not asked about.
func TestPodsThatExist(t *testing.T) {
	p := newPlugin(t)
	if err := p.Admit(t.Context(), request(pod("evil", "a"), pod("evil", "b"), ""), nil); err != nil {
		t.Errorf("a pod cannot be changed because of an image that it had: %v", err)
	}
	if err := p.Admit(t.Context(), request(pod("evil"), pod("b"), ""), nil); err == nil {
		t.Error("a pod got an image that may not run")
	}
	if err := p.Admit(t.Context(), request(pod("evil"), pod("b"), "ephemeralcontainers"), nil); err == nil {
		t.Error("a pod got a container that may not run")
	}
}

func TestWhatIsNotAskedAbout(t *testing.T) {
	p := newPlugin(t)
	mirror := pod("evil")
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	for name, a := range map[string]admission.Attributes{
		"status":         request(pod("evil"), pod("a"), "status"),
		"a static pod":   request(mirror, nil, ""),
		"no pod":         request(&core.Node{}, nil, ""),
		"an empty image": request(pod(""), nil, ""),
	} {
		if err := p.Admit(t.Context(), a, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
