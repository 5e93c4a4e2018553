package helm_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/source"
)

func (s *site) chart(name string) *sourcev1.HelmChart {
	s.Helper()
	c := new(sourcev1.HelmChart)
	if err := s.client.Get(s.Context(), client.ObjectKey{Namespace: "default", Name: name}, c); err != nil {
		s.Fatal(err)
	}
	return c
}

// A restart without the repository goes on with what is on disk.
func TestRestartWithoutRepository(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	s.create(helmRepository(repo), helmRelease("web", "*"))
	s.isReady("web")
	s.stop()
	repo.mu.Lock()
	repo.down = true
	repo.mu.Unlock()
	s.Server.Delete("/api/v1/namespaces/default/configmaps/web")
	s.edit("web", func(r *helmv2.HelmRelease) { r.Spec.Values = values(`{"color":"blue"}`) })
	s.run()
	s.eventually(func() error {
		if got := s.data("web")["color"]; got != "blue" {
			return fmt.Errorf("color %v", got)
		}
		return nil
	})
}

// The server is asked whether the index changed, and a chart that is not what
// the index says is refused.
func TestRepositoryIsNotTrusted(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	repo.archives["app-1.0.0.tgz"] = append(repo.archives["app-1.0.0.tgz"], 0)
	s.create(helmRepository(repo), helmRelease("web", "*"))
	s.eventually(func() error {
		c := new(sourcev1.HelmChart)
		if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "default-web"}, c); err != nil {
			return err
		}
		got := conditions.Get(c, sourcev1.FetchFailedCondition)
		if got == nil || !strings.Contains(got.Message, "content does not have the digest that it should have") {
			return fmt.Errorf("FetchFailed: %v", got)
		}
		return nil
	})
	if s.data("web") != nil {
		t.Error("the chart was installed")
	}
}

// An index is not fetched again while the server says that it is the same.
func TestIndexIsRevalidated(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	s.create(helmRepository(repo))
	read := func() *sourcev1.HelmRepository {
		r := new(sourcev1.HelmRepository)
		if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "charts"}, r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	s.eventually(func() error {
		if r := read(); !conditions.IsReady(r) || r.Status.Artifact == nil {
			return fmt.Errorf("status %+v", r.Status)
		}
		return nil
	})
	first := read().Status.Artifact
	s.reconcile(&sourcev1.HelmRepository{}, "charts")
	s.eventually(func() error {
		if r := read(); r.Status.LastHandledReconcileAt != r.Annotations[meta.ReconcileRequestAnnotation] {
			return fmt.Errorf("status %+v", r.Status)
		}
		return nil
	})
	if now := read().Status.Artifact; now.Digest != first.Digest || !now.LastUpdateTime.Equal(&first.LastUpdateTime) {
		t.Errorf("artifact %+v, before %+v", now, first)
	}
	if n := s.events.count("NewArtifact"); n != 1 {
		t.Errorf("%d events", n)
	}
}

// tree is files that can name what a path holds.
type tree struct {
	fstest.MapFS
	ids map[string]string
}

func (t tree) ID(name string) (string, error) {
	if id, ok := t.ids[name]; ok {
		return id, nil
	}
	return "-", nil
}

func chartTree(color, id string) tree {
	files := fstest.MapFS{"values/site.yaml": {Data: []byte("color: " + color + "\n")}}
	for _, f := range chartFiles("1.0.0", map[string]string{
		"Chart.yaml":  "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies: [{name: base, version: 0.x, repository: \"file://../base\"}]\n",
		".helmignore": "*.bak\n", "junk.bak": "x",
	}) {
		files["charts/app/"+f.Name] = &fstest.MapFile{Data: f.Data}
	}
	files["charts/base/Chart.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v2\nname: base\nversion: 0.1.0\n")}
	files["charts/base/templates/base.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: base}\n")}
	return tree{files, map[string]string{"charts/app": id, "values/site.yaml": color}}
}

// A chart of a Git repository is built with its values files and with the
// dependency that lies beside it.
func TestChartOfGit(t *testing.T) {
	s := start(t)
	key := source.Key{Kind: "GitRepository", Namespace: "default", Name: "repo"}
	publish := func(revision string, files tree) {
		s.store.Set(key, &source.Artifact{Revision: revision, Digest: "sha256:" + revision, Files: files, At: time.Now()})
	}
	publish("main@sha1:1111111111111111", chartTree("orange", "a"))
	r := helmRelease("web", "*")
	r.Spec.Chart.Spec = helmv2.HelmChartTemplateSpec{
		Chart: "./charts/app", SourceRef: helmv2.CrossNamespaceObjectReference{Kind: "GitRepository", Name: "repo"},
		ValuesFiles: []string{"values/site.yaml", "none.yaml"}, IgnoreMissingValuesFiles: true, ReconcileStrategy: "Revision",
	}
	s.create(r)
	got := s.isReady("web")
	if color := s.data("web")["color"]; color != "orange" {
		t.Errorf("color %v", color)
	}
	if s.Get("/api/v1/namespaces/default/configmaps/base") == nil {
		t.Error("the dependency is missing")
	}
	if got.Status.LastAttemptedRevision != "1.0.0+111111111111.1" {
		t.Errorf("revision %s", got.Status.LastAttemptedRevision)
	}
	publish("main@sha1:2222222222222222", chartTree("cyan", "a"))
	s.eventually(func() error {
		if color := s.data("web")["color"]; color != "cyan" {
			return fmt.Errorf("color %v", color)
		}
		return nil
	})
	if c := s.chart("default-web"); c.Status.Artifact.Revision != "1.0.0+222222222222.1" {
		t.Errorf("chart revision %s", c.Status.Artifact.Revision)
	}
}

func pushChart(t *testing.T, host, version string) string {
	t.Helper()
	content, err := chartFiles(version, nil).Pack()
	if err != nil {
		t.Fatal(err)
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, "application/vnd.cncf.helm.config.v1+json")
	image, err = mutate.Append(image, mutate.Addendum{
		Layer: static.NewLayer(content, "application/vnd.cncf.helm.chart.content.v1.tar+gzip"), MediaType: "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(host+"/charts/app:"+version, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// A chart of a registry is found by its range of versions; one that has to be
// signed and is not, is refused.
func TestChartOfRegistry(t *testing.T) {
	s := start(t)
	server := httptest.NewServer(registry.New(registry.Logger(discardLog())))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	pushChart(t, host, "1.0.0")
	pushChart(t, host, "1.2.0")
	pushChart(t, host, "2.0.0")
	repo := helmRepository(&repository{URL: "oci://" + host + "/charts"})
	repo.Spec.Type, repo.Spec.Insecure = "oci", true
	s.create(repo, helmRelease("web", "1.x"))
	s.isReady("web")
	if got := s.data("web")["chart"]; got != "1.2.0" {
		t.Errorf("chart %v", got)
	}

	signed := helmRelease("signed", "1.x")
	signed.Spec.Chart.Spec.Verify = &helmv2.HelmChartTemplateVerification{Provider: "cosign"}
	s.create(signed)
	s.hasReason("signed", metav1.ConditionFalse, "SourceNotReady")
	s.eventually(func() error {
		if c := conditions.Get(s.chart("default-signed"), sourcev1.SourceVerifiedCondition); c == nil || c.Status != metav1.ConditionFalse {
			return fmt.Errorf("SourceVerified: %v", c)
		}
		return nil
	})
	if s.data("signed") != nil {
		t.Error("the unsigned chart was installed")
	}
}

// A chart reference to an OCIRepository takes its artifact, and a moved tag is
// another release.
func TestChartRefToRegistry(t *testing.T) {
	s := start(t)
	key := source.Key{Kind: "OCIRepository", Namespace: "default", Name: "app"}
	publish := func(digest string, files map[string]string) {
		content, err := chartFiles("1.0.0", files).Pack()
		if err != nil {
			t.Fatal(err)
		}
		s.store.Set(key, &source.Artifact{
			Revision: "1.0.0@" + digest, Digest: digest, At: time.Now(), Files: fstest.MapFS{"app.tgz": {Data: content}},
		})
	}
	one := "sha256:" + strings.Repeat("1", 64)
	publish(one, nil)
	oci := &sourcev1.OCIRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "app"}, Spec: sourcev1.OCIRepositorySpec{URL: "oci://registry.local/app", Interval: metav1.Duration{Duration: time.Hour}}}
	s.create(oci)
	before := oci.DeepCopy()
	oci.Status.ObservedGeneration = oci.Generation
	oci.Status.Artifact = &meta.Artifact{Digest: one, Revision: "1.0.0@" + one, LastUpdateTime: metav1.Now()}
	conditions.MarkTrue(oci, meta.ReadyCondition, "Succeeded", "ok")
	if err := s.client.Status().Patch(t.Context(), oci, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	r := helmRelease("web", "")
	r.Spec.Chart, r.Spec.ChartRef = nil, &helmv2.CrossNamespaceSourceReference{Kind: "OCIRepository", Name: "app"}
	s.create(r)
	got := s.isReady("web")
	if got.Status.LastAttemptedRevision != "1.0.0+111111111111" || got.Status.History.Latest().OCIDigest != one {
		t.Errorf("revision %s, digest %s", got.Status.LastAttemptedRevision, got.Status.History.Latest().OCIDigest)
	}
	publish("sha256:"+strings.Repeat("2", 64), map[string]string{"values.yaml": "color: moved\nreplicas: 1\n"})
	s.eventually(func() error {
		if color := s.data("web")["color"]; color != "moved" {
			return fmt.Errorf("color %v", color)
		}
		return nil
	})
}
