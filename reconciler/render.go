package reconciler

import (
	"context"
	"fmt"
	"io/fs"
	"maps"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/build"
)

// Rendered is what a site's directory describes, as far as files alone tell.
type Rendered struct {
	// Objects of the directory, and of the Flux Kustomizations among them that
	// are built from the same files.
	Objects []*unstructured.Unstructured
	// Problems are Kustomizations that cannot be built without the cluster.
	Problems []string
}

// Render builds the site in a directory of files without a cluster and without
// keys. Variables that come from ConfigMaps are filled in if those are among the
// objects; what is encrypted stays so.
func Render(ctx context.Context, files fs.FS, site string) (*Rendered, error) {
	own, err := ownKustomization(files, site)
	if err != nil {
		return nil, err
	}
	r := &renderer{ctx: ctx, files: files, out: &Rendered{}, seen: map[string]bool{rootName: true}}
	options := build.Options{Dir: site, Skip: build.FluxComponents, Decrypt: build.Sealed{}}
	if own != nil {
		options.Kustomization, options.Substitute = own, r.variables(own)
	}
	result, err := build.Build(ctx, files, options)
	if err != nil {
		return nil, err
	}
	r.add(result.Objects)
	return r.out, ctx.Err()
}

// renderer follows Kustomizations within the same files.
type renderer struct {
	ctx   context.Context
	files fs.FS
	out   *Rendered
	seen  map[string]bool
}

func (r *renderer) add(objects []*unstructured.Unstructured) {
	r.out.Objects = append(r.out.Objects, objects...)
	for _, k := range nestedIn(objects) {
		name := fmt.Sprintf("Kustomization/%s/%s", k.Namespace, k.Name)
		if r.seen[name] || r.ctx.Err() != nil {
			continue
		}
		r.seen[name] = true
		result, err := build.Build(r.ctx, r.files, build.Options{
			Dir: k.Spec.Path, Kustomization: k, Substitute: r.variables(k), Decrypt: build.Sealed{}, Skip: build.FluxComponents,
		})
		if err != nil {
			r.out.Problems = append(r.out.Problems, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		r.add(result.Objects)
	}
}

// variables are those of a Kustomization's substitution, as far as they are
// known here; nil without substitution.
func (r *renderer) variables(k *kustomizev1.Kustomization) map[string]string {
	if k.Spec.PostBuild == nil {
		return nil
	}
	out := map[string]string{}
	for _, ref := range k.Spec.PostBuild.SubstituteFrom {
		for _, o := range r.out.Objects {
			if o.GetKind() != "ConfigMap" || ref.Kind != "ConfigMap" || o.GetName() != ref.Name || o.GetNamespace() != k.Namespace {
				continue
			}
			values, _, _ := unstructured.NestedStringMap(o.Object, "data")
			maps.Copy(out, values)
		}
	}
	maps.Copy(out, k.Spec.PostBuild.Substitute)
	return out
}
