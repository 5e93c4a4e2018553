package flux_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/flux"
	"github.com/bothy-os/bothy/reconciler/flux/boot"
	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/internal/fluxtest"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// site is a running component with its API server.
type site struct {
	testing.TB
	*fluxtest.Server
	client client.Client
	store  *source.Store
	events *recorder
	config flux.Config
	stop   func()
}

// start runs the component against a new server until the test ends.
func start(t testing.TB, change ...func(*flux.Config)) *site {
	t.Helper()
	s := &site{TB: t, Server: fluxtest.New(t), store: source.NewStore(), events: &recorder{}}
	s.Put("/api/v1/namespaces/apps", map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "apps"}})
	own, err := apply.ConnectConfig(&rest.Config{Host: s.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("BOTHY_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	hub := apply.NewHub(own, log)
	s.config = flux.Config{Kubeconfig: s.Kubeconfig(t), Store: s.store, Hub: hub, Events: s.events, StateDir: t.TempDir(), Log: log}
	for _, f := range change {
		f(&s.config)
	}
	s.run()
	scheme, err := flux.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	if s.client, err = client.New(&rest.Config{Host: s.URL, QPS: -1}, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	return s
}

// run starts the component and waits until it is ready.
func (s *site) run() {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.config.Hub.Run(ctx) })
	ready := make(chan struct{})
	var once sync.Once
	failed := make(chan error, 1)
	running.Go(func() {
		if err := flux.New(s.config).Run(ctx, func() { once.Do(func() { close(ready) }) }); err != nil {
			failed <- err
		}
	})
	s.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	s.Cleanup(s.stop)
	select {
	case <-ready:
	case err := <-failed:
		s.Fatal(err)
	case <-time.After(30 * time.Second):
		s.Fatal("the component did not become ready")
	}
}

// publish puts files into the store as the boot repository's.
func (s *site) publish(revision string, files map[string]string) {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	s.store.Set(source.BootKey, &source.Artifact{Revision: revision, Digest: "sha256:" + revision, Files: fsys, At: time.Now()})
}

// eventually waits until what does not fail.
func (s *site) eventually(what func() error) {
	s.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := what()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("in vain: %v\nevents:\n%s", err, strings.Join(s.events.lines(), "\n"))
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (s *site) create(o client.Object) {
	s.Helper()
	if err := s.client.Create(context.Background(), o); err != nil {
		s.Fatal(err)
	}
}

func (s *site) get(name string) *kustomizev1.Kustomization {
	s.Helper()
	k := &kustomizev1.Kustomization{}
	if err := s.client.Get(context.Background(), client.ObjectKey{Namespace: "apps", Name: name}, k); err != nil {
		s.Fatal(err)
	}
	return k
}

// edit changes an object as somebody with kubectl would.
func (s *site) edit(name string, change func(*kustomizev1.Kustomization)) {
	s.Helper()
	before := s.get(name)
	after := before.DeepCopy()
	change(after)
	if err := s.client.Patch(context.Background(), after, client.MergeFrom(before), client.FieldOwner("kubectl")); err != nil {
		s.Fatal(err)
	}
}

// isReady waits until a Kustomization is ready at a revision.
func (s *site) isReady(name, revision string) *kustomizev1.Kustomization {
	s.Helper()
	var k *kustomizev1.Kustomization
	s.eventually(func() error {
		k = s.get(name)
		if !conditions.IsReady(k) || k.Status.LastAppliedRevision != revision || k.Status.ObservedGeneration != k.Generation {
			return fmt.Errorf("%s is at %q: %s", name, k.Status.LastAppliedRevision, describe(k.Status.Conditions))
		}
		return nil
	})
	return k
}

// isNot waits until a Kustomization is not ready for a reason and returns the
// message.
func (s *site) isNot(name, reason string) string {
	s.Helper()
	var message string
	s.eventually(func() error {
		k := s.get(name)
		c := conditions.Get(k, "Ready")
		if c == nil || c.Status == metav1.ConditionTrue || c.Reason != reason {
			return fmt.Errorf("%s is not %s: %s", name, reason, describe(k.Status.Conditions))
		}
		message = c.Message
		return nil
	})
	return message
}

func describe(all []metav1.Condition) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "%s=%s %s %q; ", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

// kustomization is an object of the boot repository.
func kustomization(name string, change ...func(*kustomizev1.Kustomization)) *kustomizev1.Kustomization {
	k := &kustomizev1.Kustomization{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
		Spec: kustomizev1.KustomizationSpec{
			Interval: metav1.Duration{Duration: time.Hour}, Path: "./" + name, Prune: true,
			SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Namespace: source.BootKey.Namespace, Name: source.BootKey.Name},
		},
	}
	for _, f := range change {
		f(k)
	}
	return k
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default}\ndata: {key: %q}\n", name, value)
}

func with(files map[string]string, name, text string) map[string]string {
	out := maps.Clone(files)
	out[name] = text
	return out
}

// valueOf reads what is in a ConfigMap of the cluster.
func (s *site) valueOf(name string) string {
	o := s.Get("/api/v1/namespaces/default/configmaps/" + name)
	if o == nil {
		return "(none)"
	}
	data, _ := o["data"].(map[string]any)
	text, _ := data["key"].(string)
	return text
}

func (s *site) holds(name, value string) {
	s.Helper()
	s.eventually(func() error {
		if got := s.valueOf(name); got != value {
			return fmt.Errorf("ConfigMap %s has %q, want %q", name, got, value)
		}
		return nil
	})
}

// recorder keeps events.
type recorder struct {
	mu  sync.Mutex
	all []string
}

// Event implements events.Recorder.
func (r *recorder) Event(o client.Object, severity, reason, message string, _ map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintf("%s %s %s: %s", o.GetName(), severity, reason, message))
}

// Subscribe implements events.Publisher.
func (r *recorder) Subscribe(func(events.Event)) func() { return func() {} }

func (r *recorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.all...)
}

// fakeRoot is a boot repository that does what the test says.
type fakeRoot struct {
	mu        sync.Mutex
	source    boot.Source
	sync      boot.Sync
	changed   chan struct{}
	triggered uint64
	suspended [2]bool
}

func newFakeRoot() *fakeRoot { return &fakeRoot{changed: make(chan struct{})} }

func (r *fakeRoot) set(change func(*fakeRoot)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *fakeRoot) Source() boot.Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source
}

func (r *fakeRoot) Sync() boot.Sync {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sync
}

func (r *fakeRoot) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *fakeRoot) SuspendSource(b bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspended[0] = b
}

func (r *fakeRoot) SuspendSync(b bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspended[1] = b
}

func (r *fakeRoot) Trigger() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.triggered++
	return r.triggered
}

// newHub makes the watches of another process.
func newHub(s *site) *apply.Hub {
	s.Helper()
	own, err := apply.ConnectConfig(&rest.Config{Host: s.URL, QPS: -1})
	if err != nil {
		s.Fatal(err)
	}
	return apply.NewHub(own, s.config.Log)
}

func badExpression() kustomize.CustomHealthCheck {
	return kustomize.CustomHealthCheck{APIVersion: "v1", Kind: "ConfigMap", HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: "this is not CEL"}}
}

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
