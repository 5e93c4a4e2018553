package reconciler

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kyaml "sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/flux"
	"github.com/bothy-os/bothy/reconciler/flux/kustomization"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// ownKustomization finds the Kustomization of the site itself, flux-system/
// flux-system, which a repository made for Flux has in <site>/flux-system, and
// where its owners set patches, substitutions and decryption for all of the
// site. It is nil if there is none.
func ownKustomization(files fs.FS, site string) (*kustomizev1.Kustomization, error) {
	for _, dir := range []string{path.Join(site, source.BootKey.Namespace), site} {
		entries, err := fs.ReadDir(files, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if ext := path.Ext(e.Name()); !e.Type().IsRegular() || ext != ".yaml" && ext != ".yml" {
				continue
			}
			name := path.Join(dir, e.Name())
			data, err := fs.ReadFile(files, name)
			if err != nil {
				return nil, err
			}
			if found, err := ownIn(data); found != nil || err != nil {
				return found, prefix(err, name)
			}
		}
	}
	return nil, nil //nolint:nilnil // none is no error
}

func prefix(err error, file string) error {
	if err == nil {
		return nil
	}
	return &build.Error{File: file, Problem: err.Error()}
}

// ownIn looks into one file. Documents that are not YAML are the build's to
// complain about.
func ownIn(data []byte) (*kustomizev1.Kustomization, error) {
	if !bytes.Contains(data, []byte(kustomizev1.GroupVersion.Group)) || !bytes.Contains(data, []byte(source.BootKey.Name)) {
		return nil, nil
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := documents.Read()
		if err != nil {
			return nil, nil //nolint:nilerr,nilnil // the end, or the build's to complain about
		}
		var k kustomizev1.Kustomization
		if err := kyaml.Unmarshal(document, &k); err != nil || k.Kind != kustomizev1.KustomizationKind || k.GroupVersionKind().Group != kustomizev1.GroupVersion.Group {
			if k.Kind == kustomizev1.KustomizationKind && k.Name == source.BootKey.Name && err != nil {
				return nil, fmt.Errorf("Kustomization %s: %w", k.Name, err) //nolint:staticcheck // a kind begins with a capital
			}
			continue
		}
		if k.Name == source.BootKey.Name && k.Namespace == source.BootKey.Namespace {
			return &k, nil
		}
	}
}

// honour builds and applies as the site's own Kustomization says. What follows
// from being the boot repository stays: where it is, and that everything in it
// counts for the site's health.
func (w *workloads) honour(ctx context.Context, own *kustomizev1.Kustomization, b *build.Options, a *apply.Options) error {
	b.Kustomization = own
	from := kustomization.OptionsOf(own)
	a.Force, a.Prune, a.Ignore, a.HealthExprs, a.Self = from.Force, from.Prune, from.Ignore, from.HealthExprs, from.Self
	if own.Spec.PostBuild == nil && own.Spec.Decryption == nil {
		return nil
	}
	reader, err := w.reader()
	if err != nil {
		return err
	}
	in, err := kustomization.ReadInputs(ctx, reader, own)
	if err != nil {
		return err
	}
	b.Substitute = in.Variables
	if in.Decryptor != nil {
		b.Decrypt = in.Decryptor
	}
	return nil
}

// reader reads what the site's own Kustomization refers to.
func (r *Reconciler) reader() (client.Reader, error) {
	if _, _, err := r.cluster.get(); err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.cfg.Kubeconfig)
	if err != nil {
		return nil, err
	}
	scheme, err := flux.NewScheme()
	if err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme})
}
