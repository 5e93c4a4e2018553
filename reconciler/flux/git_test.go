package flux_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/source"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
)

func appsKey(name string) source.Key {
	return source.Key{Kind: sourcev1.GitRepositoryKind, Namespace: "apps", Name: name}
}

func gitRepository(repo *gittest.Repo, name string, change ...func(*sourcev1.GitRepository)) *sourcev1.GitRepository {
	o := &sourcev1.GitRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
		Spec: sourcev1.GitRepositorySpec{
			URL: "file://" + repo.Dir, Interval: metav1.Duration{Duration: time.Hour}, Reference: &sourcev1.GitRepositoryRef{Branch: "main"},
		},
	}
	for _, f := range change {
		f(o)
	}
	return o
}

func (s *site) repository(name string, wanted func(*sourcev1.GitRepository) bool) *sourcev1.GitRepository {
	s.Helper()
	o := &sourcev1.GitRepository{}
	s.eventually(func() error {
		if err := s.client.Get(context.Background(), client.ObjectKey{Namespace: "apps", Name: name}, o); err != nil {
			return err
		}
		if !wanted(o) {
			return fmt.Errorf("GitRepository %s: %+v %s", name, o.Status.Artifact, describe(o.Status.Conditions))
		}
		return nil
	})
	return o
}

func at(revision string) func(*sourcev1.GitRepository) bool {
	return func(o *sourcev1.GitRepository) bool {
		return conditions.IsReady(o) && o.Status.Artifact != nil && o.Status.Artifact.Revision == revision
	}
}

func notReady(reason string) func(*sourcev1.GitRepository) bool {
	return func(o *sourcev1.GitRepository) bool {
		return conditions.IsFalse(o, meta.ReadyCondition) && conditions.GetReason(o, meta.ReadyCondition) == reason
	}
}

// fetchNow asks for a reconcile as the flux command does.
func (s *site) fetchNow(name, token string) {
	s.Helper()
	o := s.repository(name, func(*sourcev1.GitRepository) bool { return true })
	text := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, meta.ReconcileRequestAnnotation, token)
	if err := s.client.Patch(context.Background(), o, client.RawPatch("application/merge-patch+json", []byte(text))); err != nil {
		s.Fatal(err)
	}
	s.repository(name, func(o *sourcev1.GitRepository) bool { return o.Status.LastHandledReconcileAt == token })
}

func TestGitRepositoryFeedsKustomizations(t *testing.T) {
	gittest.Need(t, "git")
	repo := gittest.NewRepo(t)
	repo.Write("deploy/cm.yaml", configMap("one", "1"))
	first := repo.Commit(nil, "one")
	s := start(t)
	s.create(gitRepository(repo, "app"))
	s.repository("app", at("main@sha1:"+first))
	s.create(kustomization("a", func(k *kustomizev1.Kustomization) {
		k.Spec.Path, k.Spec.SourceRef = "./deploy", kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "app"}
	}))
	s.isReady("a", "main@sha1:"+first)

	repo.Write("deploy/cm.yaml", configMap("one", "2"))
	second := repo.Commit(nil, "two")
	s.fetchNow("app", "1")
	s.isReady("a", "main@sha1:"+second)
	s.holds("one", "2")

	// A fetch that finds nothing writes nothing but that it was made.
	s.Take()
	s.fetchNow("app", "2")
	if writes := s.Writes("/gitrepositories/app/status"); len(writes) != 1 {
		t.Errorf("a fetch that found nothing made %d writes", len(writes))
	}

	// The repository goes away: the artifact stays, and is there after a restart.
	away := repo.Dir + ".away"
	if err := os.Rename(repo.Dir, away); err != nil {
		t.Fatal(err)
	}
	s.fetchNow("app", "3")
	o := s.repository("app", notReady(sourcev1.GitOperationFailedReason))
	if o.Status.Artifact == nil || s.store.Get(appsKey("app")) == nil {
		t.Error("the last artifact was dropped")
	}
	s.stop()
	s.store.Set(appsKey("app"), nil)
	s.config.Hub = newHub(s)
	s.run()
	s.eventually(func() error {
		if a := s.store.Get(appsKey("app")); a == nil || a.Revision != "main@sha1:"+second {
			return fmt.Errorf("not restored: %+v", a)
		}
		return nil
	})
	if err := os.Rename(away, repo.Dir); err != nil {
		t.Fatal(err)
	}
	s.fetchNow("app", "4")
	s.repository("app", at("main@sha1:"+second))

	// Deleting the object deletes the mirror.
	if err := s.client.Delete(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	s.eventually(func() error {
		left, err := filepath.Glob(filepath.Join(s.config.StateDir, "sources", "git", "*"))
		if err != nil || len(left) > 0 || s.store.Get(appsKey("app")) != nil {
			return fmt.Errorf("left behind: %v %w", left, err)
		}
		return nil
	})
}

func TestGitRepositoryVerifiesSignatures(t *testing.T) {
	alice, mallory := gittest.SSHKey(t, "alice"), gittest.SSHKey(t, "mallory")
	repo := gittest.NewRepo(t)
	repo.Write("cm.yaml", configMap("one", "1"))
	good := repo.Commit(alice, "signed")
	s := start(t)
	s.Put("/api/v1/namespaces/apps/secrets/keys", map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "keys", "namespace": "apps"},
		"data": map[string]any{"alice.sshpub": base64Of(alice.Public)},
	})
	s.create(gitRepository(repo, "app", func(o *sourcev1.GitRepository) {
		o.Spec.Verification = &sourcev1.GitRepositoryVerification{Mode: sourcev1.ModeGitHEAD, SecretRef: meta.LocalObjectReference{Name: "keys"}}
	}))
	o := s.repository("app", at("main@sha1:"+good))
	if !conditions.IsTrue(o, sourcev1.SourceVerifiedCondition) {
		t.Errorf("nothing says that it is verified: %s", describe(o.Status.Conditions))
	}
	for name, sign := range map[string]*gittest.Key{"unsigned": nil, "unknown key": mallory} {
		t.Run(name, func(t *testing.T) {
			repo.Write("cm.yaml", configMap("one", name))
			repo.Commit(sign, name)
			s.fetchNow("app", name)
			o := s.repository("app", notReady("VerificationError"))
			if o.Status.Artifact.Revision != "main@sha1:"+good || s.store.Get(appsKey("app")).Revision != "main@sha1:"+good {
				t.Error("a commit that is not verified became the artifact")
			}
			if !conditions.IsFalse(o, sourcev1.SourceVerifiedCondition) {
				t.Errorf("SourceVerified does not say so: %s", describe(o.Status.Conditions))
			}
		})
	}
	repo.Write("cm.yaml", configMap("one", "again"))
	better := repo.Commit(alice, "signed again")
	s.fetchNow("app", "again")
	s.repository("app", at("main@sha1:"+better))
}

func TestGitRepositoryVerifiesTags(t *testing.T) {
	alice := gittest.SSHKey(t, "alice")
	repo := gittest.NewRepo(t)
	repo.Write("cm.yaml", configMap("one", "1"))
	commit := repo.Commit(nil, "not signed")
	repo.Git(append(alice.SignArgs(), "tag", "-s", "-m", "release", "v1.0.0")...)
	// The signed tag under another name.
	repo.Git("update-ref", "refs/tags/v1.0.1", "refs/tags/v1.0.0")
	s := start(t)
	s.Put("/api/v1/namespaces/apps/secrets/keys", map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "keys", "namespace": "apps"},
		"data": map[string]any{"alice.sshpub": base64Of(alice.Public)},
	})
	tagged := func(ref sourcev1.GitRepositoryRef, mode sourcev1.GitVerificationMode) func(*sourcev1.GitRepository) {
		return func(o *sourcev1.GitRepository) {
			o.Spec.Reference = &ref
			o.Spec.Verification = &sourcev1.GitRepositoryVerification{Mode: mode, SecretRef: meta.LocalObjectReference{Name: "keys"}}
		}
	}
	s.create(gitRepository(repo, "good", tagged(sourcev1.GitRepositoryRef{SemVer: "1.0.0"}, sourcev1.ModeGitTag)))
	s.create(gitRepository(repo, "renamed", tagged(sourcev1.GitRepositoryRef{Tag: "v1.0.1"}, sourcev1.ModeGitTag)))
	s.create(gitRepository(repo, "both", tagged(sourcev1.GitRepositoryRef{Tag: "v1.0.0"}, sourcev1.ModeGitTagAndHEAD)))
	s.repository("good", at("v1.0.0@sha1:"+commit))
	if o := s.repository("renamed", notReady("VerificationError")); !strings.Contains(conditions.GetMessage(o, meta.ReadyCondition), "about the tag 'v1.0.0'") {
		t.Error(conditions.GetMessage(o, meta.ReadyCondition))
	}
	s.repository("both", notReady("VerificationError"))
}

func TestGitRepositoryCutsAndIncludes(t *testing.T) {
	gittest.Need(t, "git")
	lib, app := gittest.NewRepo(t), gittest.NewRepo(t)
	lib.Write("base/cm.yaml", configMap("base", "1"))
	lib.Commit(nil, "lib")
	app.Write("deploy/cm.yaml", configMap("one", "1"))
	app.Write("docs/readme.yaml", "not: wanted")
	app.Write("deploy/secret.txt", "hidden")
	commit := app.Commit(nil, "app")
	s := start(t)
	s.create(gitRepository(app, "app", func(o *sourcev1.GitRepository) {
		o.Spec.SparseCheckout = []string{"./deploy"}
		o.Spec.Ignore = new("*.txt")
		o.Spec.Include = []sourcev1.GitRepositoryInclude{{GitRepositoryRef: meta.LocalObjectReference{Name: "lib"}, FromPath: "base", ToPath: "deploy/lib"}}
	}))
	s.repository("app", notReady("NotFound"))
	s.create(gitRepository(lib, "lib"))
	s.repository("app", at("main@sha1:"+commit))
	var files []string
	if err := fs.WalkDir(s.store.Get(appsKey("app")).Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(files, " "); got != "deploy/cm.yaml deploy/lib/cm.yaml" {
		t.Errorf("files are %s", got)
	}
	// A change of the included repository arrives as well.
	s.create(kustomization("a", func(k *kustomizev1.Kustomization) {
		k.Spec.Path, k.Spec.SourceRef = "./deploy", kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "app"}
	}))
	s.holds("base", "1")
	lib.Write("base/cm.yaml", configMap("base", "2"))
	lib.Commit(nil, "lib 2")
	s.fetchNow("lib", "1")
	s.holds("base", "2")
}

func TestGitRepositorySaysWhatItCannot(t *testing.T) {
	gittest.Need(t, "git")
	repo := gittest.NewRepo(t)
	s := start(t)
	s.create(gitRepository(repo, "modules", func(o *sourcev1.GitRepository) { o.Spec.RecurseSubmodules = true }))
	s.create(gitRepository(repo, "cloud", func(o *sourcev1.GitRepository) { o.Spec.Provider = "azure" }))
	for _, name := range []string{"modules", "cloud"} {
		if o := s.repository(name, notReady("Unsupported")); !conditions.IsStalled(o) {
			t.Errorf("%s is not stalled", name)
		}
	}
	s.create(&sourcev1.Bucket{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "bucket"}, Spec: sourcev1.BucketSpec{BucketName: "b", Endpoint: "e", Interval: metav1.Duration{Duration: time.Hour}}})
	s.eventually(func() error {
		o := &sourcev1.Bucket{}
		if err := s.client.Get(context.Background(), client.ObjectKey{Namespace: "apps", Name: "bucket"}, o); err != nil {
			return err
		}
		if !conditions.IsStalled(o) {
			return fmt.Errorf("Bucket: %s", describe(o.Status.Conditions))
		}
		return nil
	})
}
