package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/pmezard/go-difflib/difflib"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/flux/kustomization"
	"github.com/bothy-os/bothy/reconciler/flux/source"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// Preview is what a revision would change on this site.
type Preview struct {
	// Refused says why the revision could not become the site's; nothing else is
	// filled in then.
	Refused string `json:"refused,omitempty"`
	// Files are the site's own settings that change: the Cluster and Machines.
	Files []FileChange `json:"files,omitempty"`
	// Syncs are the site's directory and those Flux Kustomizations in it that
	// would change, in the order in which they were found.
	Syncs []SyncPreview `json:"syncs"`
}

// FileChange is a file of settings that changes.
type FileChange struct {
	Path string `json:"path"`
	// Diff is in unified form.
	Diff string `json:"diff"`
}

// SyncPreview is what would be done to one set of objects.
type SyncPreview struct {
	// Name is "Kustomization/namespace/name".
	Name    string                `json:"name"`
	Changes []apply.PlannedChange `json:"changes,omitempty"`
	// Error says why the set cannot be built or tried.
	Error string `json:"error,omitempty"`
}

// Changed reports whether the revision changes anything.
func (p *Preview) Changed() bool {
	if len(p.Files) > 0 {
		return true
	}
	return slices.ContainsFunc(p.Syncs, func(s SyncPreview) bool { return changes(s.Changes) })
}

// Failed reports whether the revision could not be applied whole.
func (p *Preview) Failed() bool {
	if p.Refused != "" {
		return true
	}
	for _, s := range p.Syncs {
		if s.Error != "" {
			return true
		}
		for _, c := range s.Changes {
			if c.Problem != "" {
				return true
			}
		}
	}
	return false
}

// PreviewFiles tells what the site would change if these were the files of the
// accepted commit. It stores nothing.
func (r *Reconciler) PreviewFiles(ctx context.Context, files fs.FS) (*Preview, error) {
	s := &Snapshot{Subject: "preview", Path: r.sitePath(), Files: files}
	if err := s.readSite(); err != nil {
		return &Preview{Refused: err.Error()}, nil //nolint:nilerr // a refusal is the answer
	}
	return r.preview(ctx, s)
}

// PreviewRevision is PreviewFiles for a commit that is in the mirror, named by
// its id or the beginning of it.
func (r *Reconciler) PreviewRevision(ctx context.Context, id string) (*Preview, error) {
	objects, err := mirror.Open(r.gitDir(), r.cfg.Limits)
	if err != nil {
		return nil, err
	}
	s, err := loadSnapshot(objects, id, r.sitePath())
	var refusal *acceptance.Refusal
	switch {
	case errors.As(err, &refusal):
		return &Preview{Refused: refusal.Error()}, nil
	case errors.Is(err, mirror.ErrMissing):
		return nil, fmt.Errorf("this site has no commit %s; name a directory, or run the command where git knows the revision", id)
	case err != nil:
		return nil, err
	}
	return r.preview(ctx, s)
}

func (r *Reconciler) preview(ctx context.Context, s *Snapshot) (*Preview, error) {
	if r.cfg.Validate != nil {
		if err := r.cfg.Validate(ctx, s); err != nil {
			return &Preview{Refused: err.Error()}, ctx.Err()
		}
	}
	p := &Preview{}
	now, _ := r.Accepted()
	p.Files = settingsDiff(now, s)
	w := newWorkloads(r)
	built, err := w.buildSite(ctx, s)
	if err != nil {
		p.Syncs = []SyncPreview{{Name: rootName, Error: err.Error()}}
		return p, ctx.Err()
	}
	client, _, err := r.cluster.get()
	if err != nil {
		return nil, err
	}
	options := built.options
	options.Name, options.Store, options.Log = inventoryName, apply.ConfigMapStore(client, inventoryName), r.log
	p.Syncs = append(p.Syncs, plan(ctx, client, rootName, options, apply.Desired{Commit: s.Commit, Objects: built.objects}))
	if err := r.previewNested(ctx, s, client, built, p); err != nil {
		return nil, err
	}
	return p, ctx.Err()
}

// previewNested goes through the Kustomizations among the objects that are built
// from the same files, and those among theirs.
func (r *Reconciler) previewNested(ctx context.Context, s *Snapshot, client *apply.Client, root *site, p *Preview) error {
	reader, err := r.reader()
	if err != nil {
		return err
	}
	queue, seen := nestedIn(root.objects), map[string]bool{rootName: true}
	for len(queue) > 0 && ctx.Err() == nil {
		k := queue[0]
		queue = queue[1:]
		name := fmt.Sprintf("Kustomization/%s/%s", k.Namespace, k.Name)
		if seen[name] {
			continue
		}
		seen[name] = true
		sync, objects := r.previewOne(ctx, s, client, reader, k, name)
		if sync.Error != "" || changes(sync.Changes) {
			p.Syncs = append(p.Syncs, sync)
		}
		queue = append(queue, nestedIn(objects)...)
	}
	return ctx.Err()
}

// previewOne plans one Kustomization with the agent's own rights: a dry run
// stores nothing.
func (r *Reconciler) previewOne(ctx context.Context, s *Snapshot, client *apply.Client, reader ctrlclient.Reader, k *kustomizev1.Kustomization, name string) (SyncPreview, []*unstructured.Unstructured) {
	fail := func(err error) (SyncPreview, []*unstructured.Unstructured) {
		return SyncPreview{Name: name, Error: err.Error()}, nil
	}
	in, err := kustomization.ReadInputs(ctx, reader, k)
	if err != nil {
		return fail(err)
	}
	result, err := build.Build(ctx, s.Files, build.Options{Dir: k.Spec.Path, Kustomization: k, Substitute: in.Variables, Decrypt: in.Decryptor, Skip: build.FluxComponents})
	if err != nil {
		return fail(err)
	}
	live := &kustomizev1.Kustomization{}
	if err := reader.Get(ctx, ctrlclient.ObjectKeyFromObject(k), live); err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
		return fail(err)
	}
	options := kustomization.OptionsOf(k)
	options.Store, options.Log = kustomization.StoredInventory(live), r.log
	return plan(ctx, client, name, options, apply.Desired{Commit: s.Commit, Objects: result.Objects}), result.Objects
}

// nestedIn lists the Kustomizations among objects that are built from the boot
// repository.
func nestedIn(objects []*unstructured.Unstructured) []*kustomizev1.Kustomization {
	var out []*kustomizev1.Kustomization
	for _, o := range objects {
		if o.GetKind() != kustomizev1.KustomizationKind || o.GroupVersionKind().Group != kustomizev1.GroupVersion.Group {
			continue
		}
		k := &kustomizev1.Kustomization{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, k); err != nil {
			continue // the dry run of the object itself says what is wrong with it
		}
		if k.Namespace == "" {
			k.Namespace = metav1.NamespaceDefault
		}
		from := k.Spec.SourceRef
		if from.Namespace == "" {
			from.Namespace = k.Namespace
		}
		if (source.Key{Kind: from.Kind, Namespace: from.Namespace, Name: from.Name}) == source.BootKey && k.Spec.KubeConfig == nil {
			out = append(out, k)
		}
	}
	return out
}

func changes(planned []apply.PlannedChange) bool {
	for _, c := range planned {
		if c.Action != apply.Unchanged && c.Action != apply.Skipped || c.Problem != "" {
			return true
		}
	}
	return false
}

// rootName is the site's directory as the Flux API shows it.
const rootName = "Kustomization/flux-system/flux-system"

// plan asks the API server what applying the objects would do.
func plan(ctx context.Context, client *apply.Client, name string, o apply.Options, d apply.Desired) SyncPreview {
	engine := apply.NewEngine(client, o)
	defer engine.Close()
	out := SyncPreview{Name: name}
	err := engine.Set(d)
	if err == nil {
		out.Changes, err = engine.Plan(ctx)
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// settingsDiff compares the Cluster and the Machines of two snapshots. The
// older may be nil.
func settingsDiff(was, is *Snapshot) []FileChange {
	before, after := settingsFiles(was), settingsFiles(is)
	var out []FileChange
	for _, path := range slices.Sorted(maps.Keys(union(before, after))) {
		if before[path] == after[path] {
			continue
		}
		text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
			A: difflib.SplitLines(before[path]), B: difflib.SplitLines(after[path]), Context: 2,
		})
		if err != nil {
			text = err.Error()
		}
		out = append(out, FileChange{Path: path, Diff: text})
	}
	return out
}

func union(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func settingsFiles(s *Snapshot) map[string]string {
	out := map[string]string{}
	if s == nil {
		return out
	}
	if s.Cluster != nil {
		out[s.Cluster.Path] = string(s.Cluster.Data)
	}
	for _, m := range s.Machines {
		out[m.Path] = string(m.Data)
	}
	return out
}
