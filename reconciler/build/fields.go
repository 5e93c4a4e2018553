package build

import (
	"fmt"
	"io/fs"
	"path"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"
	"sigs.k8s.io/yaml"
)

// needsKustomize reports whether a field asks for something that only
// kustomize does. commonMetadata and substitution are done without it.
func needsKustomize(spec *kustomizev1.KustomizationSpec) bool {
	return spec.NamePrefix != "" || spec.NameSuffix != "" || spec.TargetNamespace != "" ||
		len(spec.Patches)+len(spec.Images)+len(spec.Components)+len(spec.BuildMetadata) > 0
}

// overlaid adds the objects of a directory with the fields of the Flux object
// written into its kustomization, or into one that lists its manifests. That
// file exists in memory alone.
func (b *builder) overlaid(dir string) {
	name, k, err := b.kustomizationOf(dir)
	if err == nil {
		err = b.setFields(dir, k, &b.options.Kustomization.Spec)
	}
	var data []byte
	if err == nil {
		data, err = yaml.Marshal(k)
	}
	if err != nil {
		b.fail(withFile(err, name, ""))
		return
	}
	b.kustomization(dir, map[string][]byte{name: data})
}

// kustomizationOf returns the kustomization of a directory and the path of its
// file, which need not exist.
func (b *builder) kustomizationOf(dir string) (string, *kustypes.Kustomization, error) {
	k := &kustypes.Kustomization{TypeMeta: kustypes.TypeMeta{APIVersion: kustypes.KustomizationVersion, Kind: kustypes.KustomizationKind}}
	for _, base := range kustomizationNames {
		name := path.Join(dir, base)
		if info, err := fs.Stat(b.fsys, name); err != nil || info.IsDir() {
			continue
		}
		data, err := b.readFile(name)
		if err == nil {
			err = guard(name, data, true)
		}
		if err == nil {
			if err = yaml.Unmarshal(data, k); err != nil {
				err = &Error{Problem: err.Error(), Remedy: "correct the kustomization"}
			}
		}
		return name, k, err
	}
	var err error
	k.Resources, err = b.manifests(dir, ".")
	return path.Join(dir, kustomizationNames[0]), k, err
}

// manifests lists what a directory without a kustomization consists of, as
// paths relative to it.
func (b *builder) manifests(dir, at string) ([]string, error) {
	entries, err := fs.ReadDir(b.fsys, path.Join(dir, at))
	if err != nil {
		return nil, err
	}
	if at != "." && hasKustomization(entries) {
		return []string{at}, nil
	}
	var out []string
	for _, e := range entries {
		name := path.Join(at, e.Name())
		switch {
		case e.IsDir():
			below, err := b.manifests(dir, name)
			if err != nil {
				return nil, err
			}
			out = append(out, below...)
		case b.isManifest(e):
			out = append(out, name)
		}
	}
	return out, nil
}

// setFields writes the fields of a Flux object into a kustomization: scalars
// replace, lists are added to.
func (b *builder) setFields(dir string, k *kustypes.Kustomization, spec *kustomizev1.KustomizationSpec) error {
	set := func(field *string, value string) {
		if value != "" {
			*field = value
		}
	}
	set(&k.Namespace, spec.TargetNamespace)
	set(&k.NamePrefix, spec.NamePrefix)
	set(&k.NameSuffix, spec.NameSuffix)
	for _, p := range spec.Patches {
		k.Patches = append(k.Patches, kustypes.Patch{Patch: p.Patch, Target: selector(p.Target)})
	}
	for _, image := range spec.Images {
		k.Images = withImage(k.Images, image)
	}
	if len(spec.BuildMetadata) > 0 {
		k.BuildMetadata = nil
		for _, option := range spec.BuildMetadata {
			k.BuildMetadata = append(k.BuildMetadata, string(option))
		}
	}
	return b.addComponents(dir, k, spec)
}

func (b *builder) addComponents(dir string, k *kustypes.Kustomization, spec *kustomizev1.KustomizationSpec) error {
	for _, component := range spec.Components {
		if isRemote(component) || path.IsAbs(component) {
			return &Error{
				File:    "spec.components",
				Problem: fmt.Sprintf("%q is not a relative path in the repository", component),
				Remedy:  "copy the component into the repository and give its path relative to spec.path",
			}
		}
		at := relative(path.Join("/", dir, component))
		if _, err := fs.Stat(b.fsys, at); err != nil && spec.IgnoreMissingComponents {
			continue
		}
		k.Components = append(k.Components, component)
	}
	return nil
}

// withImage merges an image into the list. Tag and digest are one choice:
// setting either clears the other, for a stale digest beside a new tag would
// win silently.
func withImage(images []kustypes.Image, image fluxkustomize.Image) []kustypes.Image {
	i := slices.IndexFunc(images, func(have kustypes.Image) bool { return have.Name == image.Name })
	if i < 0 {
		return append(images, kustypes.Image{Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest})
	}
	if image.NewName != "" {
		images[i].NewName = image.NewName
	}
	if image.NewTag != "" || image.Digest != "" {
		images[i].NewTag, images[i].Digest = image.NewTag, image.Digest
	}
	return images
}

func selector(s *fluxkustomize.Selector) *kustypes.Selector {
	if s == nil {
		return nil
	}
	return &kustypes.Selector{
		ResId: resid.ResId{
			Gvk:       resid.Gvk{Group: s.Group, Version: s.Version, Kind: s.Kind},
			Name:      s.Name,
			Namespace: s.Namespace,
		},
		LabelSelector:      s.LabelSelector,
		AnnotationSelector: s.AnnotationSelector,
	}
}

// commonMetadata sets the labels and annotations that all objects get.
func (b *builder) commonMetadata() {
	if !b.flux() || b.options.Kustomization.Spec.CommonMetadata == nil {
		return
	}
	common := b.options.Kustomization.Spec.CommonMetadata
	for _, u := range b.result.Objects {
		if len(common.Labels) > 0 {
			u.SetLabels(merged(u.GetLabels(), common.Labels))
		}
		if len(common.Annotations) > 0 {
			u.SetAnnotations(merged(u.GetAnnotations(), common.Annotations))
		}
	}
}

func merged(have, more map[string]string) map[string]string {
	if have == nil {
		have = map[string]string{}
	}
	for key, value := range more {
		have[key] = value
	}
	return have
}

// isEmpty reports whether a kustomization says nothing, which kustomize takes
// for an error and Flux does not.
func isEmpty(data []byte) bool {
	documents, err := decodeAll(data)
	if err != nil || len(documents) > 1 {
		return false
	}
	for _, doc := range documents {
		content, ok := doc.(map[string]any)
		if !ok {
			return false
		}
		for key, value := range content {
			list, isList := value.([]any)
			if key != "apiversion" && key != "kind" && value != nil && (!isList || len(list) > 0) {
				return false
			}
		}
	}
	return true
}
