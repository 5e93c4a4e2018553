package helm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/go-logr/logr"

	"github.com/bothy-os/bothy/reconciler/flux/crds"
	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/helm"
	"github.com/bothy-os/bothy/reconciler/flux/helm/charts"
	"github.com/bothy-os/bothy/reconciler/flux/internal/fluxtest"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// site is the controllers with their API server.
type site struct {
	testing.TB
	*fluxtest.Server
	config *rest.Config
	client client.Client
	store  *source.Store
	events *recorder
	state  string
	stop   func()
}

// start runs the controllers against a new server until the test ends.
func start(t testing.TB) *site {
	t.Helper()
	s := &site{TB: t, Server: fluxtest.New(t), events: &recorder{}, state: t.TempDir()}
	s.config = &rest.Config{Host: versioned(t, s.Server.URL), QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	if err := crds.Install(t.Context(), s.config); err != nil {
		t.Fatal(err)
	}
	s.run()
	return s
}

// versioned adds the server's version, which Helm wants to know, to what it
// answers.
func versioned(t testing.TB, address string) string {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval:  -1,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		ModifyResponse: nameList,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			fmt.Fprint(w, `{"major":"1","minor":"37","gitVersion":"v1.37.1"}`)
			return
		}
		if err := placed(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// placed puts the namespace into objects that are written without one, as the
// API server does.
func placed(r *http.Request) error {
	_, rest, ok := strings.Cut(r.URL.Path, "/namespaces/")
	if namespace, _, deeper := strings.Cut(rest, "/"); ok && deeper && (r.Method == http.MethodPost || r.Method == http.MethodPut) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		var o unstructured.Unstructured
		if err := json.Unmarshal(raw, &o.Object); err != nil {
			return err
		}
		o.SetNamespace(namespace)
		if raw, err = json.Marshal(o.Object); err != nil {
			return err
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	}
	return nil
}

// nameList gives lists the kind that clients of any kind of object want.
func nameList(r *http.Response) error {
	if r.Request.Method != http.MethodGet || r.Request.URL.Query().Get("watch") != "" ||
		strings.Contains(r.Request.Header.Get("Accept"), "PartialObjectMetadata") {
		return nil
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var list struct {
		Kind     string           `json:"kind,omitempty"`
		Version  string           `json:"apiVersion,omitempty"`
		Metadata map[string]any   `json:"metadata"`
		Items    []map[string]any `json:"items"`
	}
	if json.Unmarshal(raw, &list) == nil && list.Kind == "" && len(list.Items) > 0 {
		list.Kind = fmt.Sprint(list.Items[0]["kind"], "List")
		list.Version = fmt.Sprint(list.Items[0]["apiVersion"])
		if raw, err = json.Marshal(list); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	r.Header.Del("Content-Length")
	return nil
}

func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, errors.Join(scheme.AddToScheme(s), sourcev1.AddToScheme(s), helmv2.AddToScheme(s))
}

// run starts the controllers, as another process would.
func (s *site) run() {
	s.Helper()
	known, err := newScheme()
	if err != nil {
		s.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("BOTHY_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	watched := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{meta.LabelKeyWatch: meta.LabelValueWatchEnabled})}
	mgr, err := ctrl.NewManager(s.config, ctrl.Options{
		Scheme: known, Logger: logr.FromSlogHandler(log.Handler()), Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Secret{}: watched, &corev1.ConfigMap{}: watched}},
		Client: client.Options{Cache: &client.CacheOptions{
			DisableFor: []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}, &corev1.ServiceAccount{}},
		}},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		s.Fatal(err)
	}
	s.store = source.NewStore()
	e := env.Env{Store: s.store, Events: s.events, RESTConfig: s.config, StateDir: s.state, Log: log, Version: "test"}
	if err := helm.Setup(mgr, e); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mgr.Start(ctx); err != nil {
			s.Errorf("manager: %v", err)
		}
	})
	s.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	s.Cleanup(func() { s.stop() })
	if s.client, err = client.New(s.config, client.Options{Scheme: known}); err != nil {
		s.Fatal(err)
	}
}

// eventually waits until what does not fail.
func (s *site) eventually(what func() error) {
	s.Helper()
	poll, deadline := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer poll.Stop()
	for {
		err := what()
		if err == nil {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			s.Fatalf("in vain: %v\nevents:\n%s", err, strings.Join(s.events.lines(), "\n"))
		}
	}
}

func (s *site) create(objects ...client.Object) {
	s.Helper()
	for _, o := range objects {
		if err := s.client.Create(context.Background(), o); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *site) release(name string) *helmv2.HelmRelease {
	s.Helper()
	r := new(helmv2.HelmRelease)
	get := func() error {
		return s.client.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: name}, r)
	}
	err := get()
	if err != nil {
		// The connection may be one that ended with the controllers.
		err = get()
	}
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// edit changes a release as somebody with kubectl would.
func (s *site) edit(name string, change func(*helmv2.HelmRelease)) {
	s.Helper()
	before := s.release(name)
	after := before.DeepCopy()
	change(after)
	if err := s.client.Patch(context.Background(), after, client.MergeFrom(before), client.FieldOwner("kubectl")); err != nil {
		s.Fatal(err)
	}
}

// isReady waits until a release is ready with its current specification.
func (s *site) isReady(name string) *helmv2.HelmRelease {
	s.Helper()
	return s.hasReason(name, metav1.ConditionTrue, "")
}

// hasReason waits until Ready says something.
func (s *site) hasReason(name string, status metav1.ConditionStatus, reason string) *helmv2.HelmRelease {
	s.Helper()
	var r *helmv2.HelmRelease
	s.eventually(func() error {
		r = s.release(name)
		c := conditions.Get(r, meta.ReadyCondition)
		switch {
		case c == nil:
			return errors.New("no condition yet")
		case c.Status != status || reason != "" && c.Reason != reason:
			return fmt.Errorf("Ready is %s %s: %s", c.Status, c.Reason, c.Message)
		case status == metav1.ConditionTrue && r.Status.ObservedGeneration != r.Generation:
			return fmt.Errorf("generation %d observed of %d", r.Status.ObservedGeneration, r.Generation)
		}
		return nil
	})
	return r
}

// storage is Helm's, as the helm command reads it.
func (s *site) storage() *storage.Storage {
	s.Helper()
	set, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		s.Fatal(err)
	}
	return storage.Init(driver.NewSecrets(set.CoreV1().Secrets("default")))
}

func (s *site) last(name string) *release.Release {
	s.Helper()
	r, err := s.storage().Last(name)
	if err != nil {
		s.Fatal(err)
	}
	return r.(*release.Release)
}

// data returns the data of a ConfigMap in the namespace default, nil if it is
// not there.
func (s *site) data(name string) map[string]any {
	o := s.Get("/api/v1/namespaces/default/configmaps/" + name)
	if o == nil {
		return nil
	}
	data, _, _ := unstructured.NestedMap(o, "data")
	return data
}

// recorder keeps events.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) Event(object client.Object, severity, reason, message string, _ map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, fmt.Sprintf("%s %s %s: %s", object.GetName(), severity, reason, message))
}

func (r *recorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.seen...)
}

func (r *recorder) count(part string) int {
	n := 0
	for _, line := range r.lines() {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// repository is a chart repository on loopback.
type repository struct {
	URL string

	mu       sync.Mutex
	archives map[string][]byte
	index    string
	fetched  map[string]int
	down     bool
}

func newRepository(t testing.TB) *repository {
	t.Helper()
	r := &repository{archives: map[string][]byte{}, fetched: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

func (r *repository) serve(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := strings.TrimPrefix(request.URL.Path, "/")
	r.fetched[name]++
	switch content := r.archives[name]; {
	case r.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case name == "index.yaml":
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(len(r.index))))
		http.ServeContent(w, request, "", time.Time{}, strings.NewReader(r.index))
	case content != nil:
		_, _ = w.Write(content)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (r *repository) fetches(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetched[name]
}

// publish adds a version of the chart "app" with these files.
func (r *repository) publish(t testing.TB, version string, files map[string]string) {
	t.Helper()
	content, err := chartFiles(version, files).Pack()
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name := "app-" + version + ".tgz"
	r.archives[name] = content
	if r.index == "" {
		r.index = "apiVersion: v1\nentries:\n  app:\n"
	}
	r.index += fmt.Sprintf("  - apiVersion: v2\n    name: app\n    version: %s\n    urls: [%s]\n    digest: %s\n", version, name, sha(content))
}

// chartFiles is the chart "app": what its templates need unless files say
// otherwise.
func chartFiles(version string, files map[string]string) charts.Files {
	all := map[string]string{
		"Chart.yaml":  "apiVersion: v2\nname: app\nversion: " + version + "\nappVersion: \"9\"\n",
		"values.yaml": "color: red\nreplicas: 1\n",
		"templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n" +
			"data:\n  color: {{ .Values.color | quote }}\n  chart: {{ .Chart.Version | quote }}\n",
	}
	for name, text := range files {
		all[name] = text
	}
	var out charts.Files
	for name, text := range all {
		out = append(out, &archive.BufferedFile{Name: name, Data: []byte(text)})
	}
	return out
}

// deployment is a template whose object the fake server makes ready or not.
const deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}-web
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "example.org/web:{{ .Values.color }}"}]
`

func helmRepository(r *repository) *sourcev1.HelmRepository {
	return &sourcev1.HelmRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "charts"},
		Spec:       sourcev1.HelmRepositorySpec{URL: r.URL, Interval: metav1.Duration{Duration: time.Hour}},
	}
}

func helmRelease(name, version string) *helmv2.HelmRelease {
	return &helmv2.HelmRelease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: helmv2.HelmReleaseSpec{
			Interval: metav1.Duration{Duration: time.Hour},
			Timeout:  &metav1.Duration{Duration: 10 * time.Second},
			Chart: &helmv2.HelmChartTemplate{Spec: helmv2.HelmChartTemplateSpec{
				Chart: "app", Version: version,
				SourceRef: helmv2.CrossNamespaceObjectReference{Kind: "HelmRepository", Name: "charts"},
			}},
		},
	}
}

func values(text string) *apiextensionsv1.JSON { return &apiextensionsv1.JSON{Raw: []byte(text)} }

// A release goes the whole way: installed, unchanged, upgraded, reconciled on
// request, uninstalled.
func TestLife(t *testing.T) {
	s, repo := start(t), newRepository(t)
	repo.publish(t, "1.0.0", nil)
	s.create(helmRepository(repo), helmRelease("web", "1.x"))

	r := s.isReady("web")
	if got := s.data("web"); got["color"] != "red" || got["chart"] != "1.0.0" {
		t.Fatalf("installed %v", got)
	}
	labels := (&unstructured.Unstructured{Object: s.Get("/api/v1/namespaces/default/configmaps/web")}).GetLabels()
	if labels["helm.toolkit.fluxcd.io/name"] != "web" || labels["helm.toolkit.fluxcd.io/namespace"] != "default" {
		t.Errorf("labels %v", labels)
	}
	if c := conditions.Get(r, helmv2.ReleasedCondition); c == nil || c.Reason != helmv2.InstallSucceededReason ||
		c.Message != "Helm install succeeded for release default/web.v1 with chart app@1.0.0" {
		t.Errorf("Released: %v", c)
	}
	if h := r.Status.History.Latest(); h.Version != 1 || h.Status != "deployed" || h.Action != helmv2.ReleaseActionInstall {
		t.Errorf("history %+v", h)
	}
	if r.Status.Inventory == nil || len(r.Status.Inventory.Entries) != 1 || r.Status.Inventory.Entries[0].ID != "default_web__ConfigMap" {
		t.Errorf("inventory %+v", r.Status.Inventory)
	}

	s.edit("web", func(r *helmv2.HelmRelease) { r.Spec.Values = values(`{"color":"blue"}`) })
	s.eventually(func() error {
		if got := s.data("web")["color"]; got != "blue" {
			return fmt.Errorf("color %v", got)
		}
		return nil
	})
	r = s.isReady("web")
	if h := r.Status.History; len(h) != 2 || h.Latest().Version != 2 || h[1].Status != "superseded" {
		t.Errorf("history after an upgrade: %+v", h)
	}

	repo.publish(t, "1.1.0", nil)
	s.reconcile(&sourcev1.HelmRepository{}, "charts")
	s.eventually(func() error {
		if got := s.data("web")["chart"]; got != "1.1.0" {
			return fmt.Errorf("chart %v", got)
		}
		return nil
	})
	s.isReady("web")

	if err := s.client.Delete(t.Context(), s.release("web")); err != nil {
		t.Fatal(err)
	}
	s.eventually(func() error {
		if s.data("web") != nil {
			return errors.New("the ConfigMap is still there")
		}
		if paths := s.pathsWith("/helmreleases/", "/helmcharts/", "sh.helm.release"); len(paths) > 0 {
			return fmt.Errorf("left behind: %v", paths)
		}
		return nil
	})
}

// reconcile asks for a reconcile as the flux command does.
func (s *site) reconcile(o client.Object, name string, more ...string) {
	s.Helper()
	if err := s.client.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: name}, o); err != nil {
		s.Fatal(err)
	}
	before := o.DeepCopyObject().(client.Object)
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	token := time.Now().Format(time.RFC3339Nano)
	for _, key := range append(more, meta.ReconcileRequestAnnotation) {
		annotations[key] = token
	}
	o.SetAnnotations(annotations)
	if err := s.client.Patch(context.Background(), o, client.MergeFrom(before)); err != nil {
		s.Fatal(err)
	}
}

func (s *site) pathsWith(parts ...string) []string {
	var out []string
	for _, path := range s.Paths() {
		for _, part := range parts {
			if strings.Contains(path, part) && !strings.Contains(path, "customresourcedefinitions") {
				out = append(out, path)
			}
		}
	}
	return out
}

func sha(content []byte) string { return fmt.Sprintf("%x", sum(content)) }
