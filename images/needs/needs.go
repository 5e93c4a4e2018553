package needs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Annotation on any object lists, separated by commas or white space, images
// that it makes the cluster use. An empty value says that there are none.
const Annotation = "bothy.dev/images"

// Images is what a set of objects needs.
type Images struct {
	// References are full and sorted.
	References []string `json:"references"`
	// Problems say what could not be found out, one line each.
	Problems []string `json:"problems,omitempty"`
}

// Of finds the images that objects use.
func Of(objects []*unstructured.Unstructured) Images {
	f := &finder{found: map[string]bool{}}
	for _, o := range objects {
		f.object(o)
	}
	for r := range f.found {
		f.images.References = append(f.images.References, r)
	}
	slices.Sort(f.images.References)
	return f.images
}

// Normalize returns the full form of a reference, as containerd names images:
// nginx is docker.io/library/nginx:latest. Of a tag beside a digest nothing is left.
func Normalize(text string) (string, error) {
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

type finder struct {
	found  map[string]bool
	images Images
	// at is the object that is looked at.
	at string
}

func (f *finder) object(o *unstructured.Unstructured) {
	f.at = o.GetKind() + " " + o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		f.at = o.GetKind() + " " + ns + "/" + o.GetName()
	}
	hint, hinted := o.GetAnnotations()[Annotation]
	for _, text := range strings.FieldsFunc(hint, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		f.add(text)
	}
	group := o.GroupVersionKind().Group
	switch {
	case builtin(group):
		f.builtin(o)
	case o.GetKind() == "HelmRelease" && !hinted:
		f.problem("which images its chart uses cannot be seen here; list them in the annotation " + Annotation)
	case o.GetKind() == "CustomResourceDefinition":
		// Its schema has fields of such names, and no images.
	default:
		f.custom(o.Object)
	}
}

func builtin(group string) bool {
	return group == "" || group == "apps" || group == "batch"
}

// podSpecs are where the built-in kinds have pod specifications.
var podSpecs = [][]string{
	{"spec"},                     // Pod
	{"spec", "template", "spec"}, // what has replicas or completes
	{"spec", "jobTemplate", "spec", "template", "spec"}, // CronJob
	{"template", "spec"}, // PodTemplate
}

func (f *finder) builtin(o *unstructured.Unstructured) {
	for _, path := range podSpecs {
		if spec, ok, _ := unstructured.NestedMap(o.Object, path...); ok {
			f.podSpec(spec)
		}
	}
}

func (f *finder) podSpec(spec map[string]any) {
	for _, field := range []string{"initContainers", "containers", "ephemeralContainers"} {
		for _, c := range items(spec[field]) {
			f.text(c["image"])
		}
	}
	for _, v := range items(spec["volumes"]) {
		if image, ok := v["image"].(map[string]any); ok {
			f.text(image["reference"])
		}
	}
}

// items are the members of a list that are objects.
func items(list any) []map[string]any {
	all, _ := list.([]any)
	var out []map[string]any
	for _, i := range all {
		if m, ok := i.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// custom looks through a custom resource. A list of containers, wherever it is,
// is read like a pod's; beside that a field "image" with a full reference counts,
// since in such objects a short name can mean anything.
func (f *finder) custom(value any) {
	switch v := value.(type) {
	case map[string]any:
		if _, ok := v["containers"].([]any); ok {
			f.podSpec(v)
		}
		if text, ok := v["image"].(string); ok && isFull(text) {
			f.add(text)
		}
		for _, inner := range v {
			f.custom(inner)
		}
	case []any:
		for _, inner := range v {
			f.custom(inner)
		}
	}
}

// isFull reports whether text names a registry and a tag or digest.
func isFull(text string) bool {
	host, _, ok := strings.Cut(text, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return false
	}
	named, err := reference.ParseNormalizedNamed(text)
	return err == nil && !reference.IsNameOnly(named)
}

func (f *finder) text(value any) {
	if text, ok := value.(string); ok && text != "" {
		f.add(text)
	}
}

func (f *finder) add(text string) {
	full, err := Normalize(text)
	if err != nil {
		f.problem(fmt.Sprintf("%q is no image: %v", text, err))
		return
	}
	f.found[full] = true
}

func (f *finder) problem(text string) {
	if line := f.at + ": " + text; !slices.Contains(f.images.Problems, line) {
		f.images.Problems = append(f.images.Problems, line)
	}
}
