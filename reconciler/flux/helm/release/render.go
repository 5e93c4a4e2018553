package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	"helm.sh/helm/v4/pkg/action"
	"sigs.k8s.io/kustomize/api/krusty"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/kio"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// The labels that say which HelmRelease an object belongs to.
const (
	labelName      = "helm.toolkit.fluxcd.io/name"
	labelNamespace = "helm.toolkit.fluxcd.io/namespace"
)

// originLabels are put on everything that a release makes.
func originLabels(r *v2.HelmRelease) map[string]string {
	return map[string]string{labelName: r.Name, labelNamespace: r.Namespace}
}

// renderer changes what a chart rendered: it applies spec.postRenderers in their
// order, then spec.commonMetadata, then the labels of origin.
type renderer struct {
	renderers []v2.PostRenderer
	common    *v2.CommonMetadata
	origin    map[string]string
}

func rendererOf(r *v2.HelmRelease) *renderer {
	return &renderer{renderers: r.Spec.PostRenderers, common: r.Spec.CommonMetadata, origin: originLabels(r)}
}

// Run implements postrenderer.PostRenderer.
func (r *renderer) Run(rendered *bytes.Buffer) (*bytes.Buffer, error) {
	content := rendered.Bytes()
	for i, step := range r.renderers {
		if step.Kustomize == nil {
			continue
		}
		var err error
		if content, err = kustomized(content, step.Kustomize); err != nil {
			return nil, fmt.Errorf("spec.postRenderers[%d]: %w", i, err)
		}
	}
	content, err := r.mark(content)
	if err != nil {
		return nil, err
	}
	return bytes.NewBuffer(content), nil
}

// mark puts labels and annotations on all objects.
func (r *renderer) mark(content []byte) ([]byte, error) {
	objects, err := kio.FromBytes(content)
	if err != nil {
		return nil, fmt.Errorf("parse what the chart rendered: %w", err)
	}
	for _, object := range objects {
		if err := r.markObject(object); err != nil {
			return nil, fmt.Errorf("label %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	text, err := kio.StringAll(objects)
	if err != nil {
		return nil, fmt.Errorf("write what the chart rendered: %w", err)
	}
	return []byte(text), nil
}

func (r *renderer) markObject(object *kyaml.RNode) error {
	if strings.HasSuffix(object.GetKind(), "List") {
		if items := object.Field("items"); items != nil {
			return items.Value.VisitElements(r.markObject)
		}
	}
	if r.common != nil {
		if err := setAll(object, r.common.Labels, r.common.Annotations); err != nil {
			return err
		}
	}
	return setAll(object, r.origin, nil)
}

func setAll(object *kyaml.RNode, labels, annotations map[string]string) error {
	for key, value := range labels {
		if err := object.PipeE(kyaml.SetLabel(key, value)); err != nil {
			return err
		}
	}
	for key, value := range annotations {
		if err := object.PipeE(kyaml.SetAnnotation(key, value)); err != nil {
			return err
		}
	}
	return nil
}

// kustomized applies patches and images, in memory.
func kustomized(content []byte, k *v2.Kustomize) ([]byte, error) {
	if len(bytes.TrimSpace(content)) == 0 {
		return content, nil
	}
	plan := kustypes.Kustomization{
		TypeMeta:  kustypes.TypeMeta{APIVersion: kustypes.KustomizationVersion, Kind: kustypes.KustomizationKind},
		Resources: []string{"rendered.yaml"}, Images: imagesOf(k.Images), Patches: patchesOf(k.Patches),
	}
	encoded, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	files := filesys.MakeFsInMemory()
	if err := files.WriteFile("rendered.yaml", content); err != nil {
		return nil, err
	}
	if err := files.WriteFile("kustomization.yaml", encoded); err != nil {
		return nil, err
	}
	options := krusty.MakeDefaultOptions()
	options.PluginConfig = kustypes.DisabledPluginConfig()
	built, err := krusty.MakeKustomizer(options).Run(files, ".")
	if err != nil {
		return nil, err
	}
	return built.AsYaml()
}

func imagesOf(images []kustomize.Image) []kustypes.Image {
	out := make([]kustypes.Image, len(images))
	for i, image := range images {
		out[i] = kustypes.Image{Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest}
	}
	return out
}

func patchesOf(patches []kustomize.Patch) []kustypes.Patch {
	out := make([]kustypes.Patch, len(patches))
	for i, patch := range patches {
		out[i] = kustypes.Patch{Patch: patch.Patch}
		if t := patch.Target; t != nil {
			selector := &kustypes.Selector{LabelSelector: t.LabelSelector, AnnotationSelector: t.AnnotationSelector}
			selector.Group, selector.Version, selector.Kind = t.Group, t.Version, t.Kind
			selector.Name, selector.Namespace = t.Name, t.Namespace
			out[i].Target = selector
		}
	}
	return out
}

// postRenderStrategy says what of a chart goes through the renderer.
func postRenderStrategy(r *v2.HelmRelease) action.PostRenderStrategy {
	if r.Spec.PostRenderStrategy == "" {
		return action.PostRenderStrategyCombined
	}
	return action.PostRenderStrategy(r.Spec.PostRenderStrategy)
}

// digestOfRenderers and digestOfMetadata tell whether rendering changed although
// chart and values did not. They are empty if there is nothing to tell.
func digestOfRenderers(r *v2.HelmRelease) string {
	if r.Spec.PostRenderers == nil {
		return ""
	}
	return digestOf(r.Spec.PostRenderers)
}

func digestOfMetadata(r *v2.HelmRelease) string {
	if r.Spec.CommonMetadata == nil {
		return ""
	}
	return digestOf(r.Spec.CommonMetadata)
}

func digestOf(v any) string {
	sum := sha256.New()
	// The types encode without fail, and so does writing to a hash.
	_ = json.NewEncoder(sum).Encode(v)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}
