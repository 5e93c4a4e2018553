package flux_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/flux"
	"github.com/bothy-os/bothy/reconciler/flux/boot"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

func bootKey() client.ObjectKey {
	return client.ObjectKey{Namespace: source.BootKey.Namespace, Name: source.BootKey.Name}
}

// bootSource waits until the boot repository's GitRepository is as wanted.
func (s *site) bootSource(wanted func(*sourcev1.GitRepository) bool) *sourcev1.GitRepository {
	s.Helper()
	o := &sourcev1.GitRepository{}
	s.eventually(func() error {
		if err := s.client.Get(context.Background(), bootKey(), o); err != nil {
			return err
		}
		if !wanted(o) {
			return fmt.Errorf("GitRepository: %s", describe(o.Status.Conditions))
		}
		return nil
	})
	return o
}

func (s *site) bootSync(wanted func(*kustomizev1.Kustomization) bool) *kustomizev1.Kustomization {
	s.Helper()
	o := &kustomizev1.Kustomization{}
	s.eventually(func() error {
		if err := s.client.Get(context.Background(), bootKey(), o); err != nil {
			return err
		}
		if !wanted(o) {
			return fmt.Errorf("Kustomization: %s", describe(o.Status.Conditions))
		}
		return nil
	})
	return o
}

// startWithRoot runs the component with a boot repository that has one accepted
// commit.
func startWithRoot(t *testing.T) (*site, *fakeRoot) {
	root := newFakeRoot()
	root.source = boot.Source{URL: "git@git.example.org:site.git", Branch: "main", Interval: time.Minute, Revision: "main@sha1:1", Signer: "alice (ssh SHA256:x)"}
	root.sync = boot.Sync{Path: "./clusters/default", Attempted: "main@sha1:1"}
	s := start(t, func(c *flux.Config) { c.Root = root })
	s.publish("main@sha1:1", map[string]string{"a/cm.yaml": configMap("one", "1")})
	return s, root
}

func TestBootRepositoryIsShown(t *testing.T) {
	s, root := startWithRoot(t)
	root.set(func(r *fakeRoot) {
		r.sync.Phase, r.sync.Applied = boot.Ready, "main@sha1:1"
		r.sync.Inventory = []apply.ID{{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: "one"}}
	})
	o := s.bootSource(func(o *sourcev1.GitRepository) bool { return conditions.IsReady(o) && o.Status.Artifact != nil })
	if o.Spec.URL != "ssh://git@git.example.org/site.git" || o.Spec.Reference.Branch != "main" || o.Status.Artifact.Revision != "main@sha1:1" {
		t.Errorf("the GitRepository is wrong: %+v %+v", o.Spec, o.Status.Artifact)
	}
	if !conditions.IsTrue(o, sourcev1.SourceVerifiedCondition) || !strings.Contains(conditions.GetMessage(o, sourcev1.SourceVerifiedCondition), "alice") {
		t.Errorf("the signer is not shown: %s", describe(o.Status.Conditions))
	}
	k := s.bootSync(func(k *kustomizev1.Kustomization) bool { return conditions.IsReady(k) })
	if k.Status.LastAppliedRevision != "main@sha1:1" || len(k.Status.Inventory.Entries) != 1 || k.Status.Inventory.Entries[0].ID != "default_one__ConfigMap" {
		t.Errorf("the Kustomization's status is wrong: %+v", k.Status)
	}

	// Its objects are the root's to apply, whatever its path holds.
	s.publish("main@sha1:1b", map[string]string{"clusters/default/cm.yaml": configMap("of-the-root", "1")})
	s.create(kustomization("a", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./clusters/default"; k.Spec.NamePrefix = "a-" }))
	s.isReady("a", "main@sha1:1b")
	if got := s.valueOf("of-the-root"); got != "(none)" {
		t.Errorf("the boot repository was applied like any other: %s", got)
	}
	s.bootSource(at("main@sha1:1b"))

	// Nothing new: nothing is written.
	s.Take()
	root.set(func(*fakeRoot) {})
	root.set(func(r *fakeRoot) { r.source.Refused, r.source.Refusal = "main@sha1:2", "is not signed" })
	o = s.bootSource(func(o *sourcev1.GitRepository) bool { return conditions.IsFalse(o, meta.ReadyCondition) })
	if o.Status.Artifact.Revision != "main@sha1:1b" || conditions.GetReason(o, meta.ReadyCondition) != "VerificationError" {
		t.Errorf("a refusal is not told: %s", describe(o.Status.Conditions))
	}
	if writes := s.Writes("flux-system"); len(writes) != 1 {
		t.Errorf("one change made %d writes: %v", len(writes), writes)
	}
	root.set(func(r *fakeRoot) { r.source.Refused, r.source.Refusal = "", "" })
	s.bootSource(func(o *sourcev1.GitRepository) bool { return conditions.IsReady(o) })
}

func TestBootRepositoryObeysTheFluxCommand(t *testing.T) {
	s, root := startWithRoot(t)
	root.set(func(r *fakeRoot) { r.sync.Phase, r.sync.Applied = boot.Ready, "main@sha1:1" })
	o := s.bootSource(func(o *sourcev1.GitRepository) bool { return conditions.IsReady(o) })
	k := s.bootSync(func(k *kustomizev1.Kustomization) bool { return conditions.IsReady(k) })

	patch := func(o client.Object, text string) {
		t.Helper()
		if err := s.client.Patch(context.Background(), o, client.RawPatch("application/merge-patch+json", []byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	patch(o, `{"spec":{"suspend":true}}`)
	patch(k, `{"spec":{"suspend":true}}`)
	s.eventually(func() error {
		root.mu.Lock()
		defer root.mu.Unlock()
		if root.suspended != [2]bool{true, true} {
			return fmt.Errorf("suspended: %v", root.suspended)
		}
		return nil
	})
	patch(o, `{"spec":{"suspend":false}}`)
	patch(k, `{"spec":{"suspend":false}}`)

	patch(o, `{"metadata":{"annotations":{"reconcile.fluxcd.io/requestedAt":"now"}}}`)
	s.eventually(func() error {
		root.mu.Lock()
		defer root.mu.Unlock()
		if root.triggered != 1 || root.suspended != [2]bool{} {
			return fmt.Errorf("triggered %d times, suspended %v", root.triggered, root.suspended)
		}
		return nil
	})
	if s.bootSource(func(*sourcev1.GitRepository) bool { return true }).Status.LastHandledReconcileAt != "" {
		t.Error("handled before the fetch has ended")
	}
	root.set(func(r *fakeRoot) { r.source.Answered = 1 })
	s.bootSource(func(o *sourcev1.GitRepository) bool { return o.Status.LastHandledReconcileAt == "now" })
}

func TestBootObjectsOfGitKeepTheirSpec(t *testing.T) {
	root := newFakeRoot()
	root.source = boot.Source{URL: "https://git.example.org/site.git", Branch: "main", Interval: time.Minute}
	s := start(t, func(c *flux.Config) { c.Root = nil })
	s.create(&sourcev1.GitRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: bootKey().Namespace, Name: bootKey().Name},
		Spec:       sourcev1.GitRepositorySpec{URL: "ssh://git@elsewhere/site", Interval: metav1.Duration{Duration: time.Hour}},
	})
	s.stop()
	s.config.Root, s.config.Hub = root, newHub(s)
	s.run()
	s.publish("main@sha1:1", nil)
	root.set(func(r *fakeRoot) { r.source.Revision = "main@sha1:1" })
	o := s.bootSource(func(o *sourcev1.GitRepository) bool { return conditions.IsReady(o) })
	if o.Spec.URL != "ssh://git@elsewhere/site" || o.Spec.Interval.Duration != time.Hour {
		t.Errorf("the spec was changed: %+v", o.Spec)
	}
	// One that somebody deletes comes back.
	if err := s.client.Delete(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	s.bootSource(func(o *sourcev1.GitRepository) bool { return o.Spec.URL == "https://git.example.org/site.git" })
}
