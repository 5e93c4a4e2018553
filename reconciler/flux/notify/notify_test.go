package notify

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/events"
)

const (
	commit    = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"
	testToken = "a-secret-token"
)

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, notificationv1.AddToScheme, notificationv1beta3.AddToScheme, kustomizev1.AddToScheme, sourcev1.AddToScheme,
	} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func newClient(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	return fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(objects...).
		WithStatusSubresource(&notificationv1.Receiver{}).
		WithIndex(&notificationv1.Receiver{}, pathIndex, pathOf).Build()
}

// said records the events that controllers report.
type said struct {
	mu  sync.Mutex
	all []string
}

func (s *said) Event(o client.Object, severity, reason, message string, _ map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, severity+" "+o.GetName()+" "+reason+": "+message)
}

func (s *said) get() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.all...)
}

// call is a request that a provider's server got.
type call struct {
	method, path string
	header       http.Header
	body         string
}

// listener is a provider's server. answer may be nil.
type listener struct {
	*httptest.Server
	mu     sync.Mutex
	calls  []call
	answer func(n int, c call) (code int, body string)
}

func listen(t *testing.T, answer func(n int, c call) (int, string)) *listener {
	t.Helper()
	l := &listener{answer: answer}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		c := call{r.Method, r.URL.RequestURI(), r.Header, string(body)}
		l.mu.Lock()
		l.calls = append(l.calls, c)
		n := len(l.calls)
		l.mu.Unlock()
		if l.answer != nil {
			code, text := l.answer(n, c)
			w.WriteHeader(code)
			io.WriteString(w, text)
		}
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) got() []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]call(nil), l.calls...)
}

func provider(kind, address string) *notificationv1beta3.Provider {
	return &notificationv1beta3.Provider{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: kind, UID: "1234abcd-0000"},
		Spec:       notificationv1beta3.ProviderSpec{Type: kind, Address: address, SecretRef: &meta.LocalObjectReference{Name: "token"}},
	}
}

func secret(name string, kv ...string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name}, Data: map[string][]byte{}}
	for i := 0; i < len(kv); i += 2 {
		s.Data[kv[i]] = []byte(kv[i+1])
	}
	return s
}

func alertFor(p *notificationv1beta3.Provider, change func(*notificationv1beta3.AlertSpec)) *notificationv1beta3.Alert {
	a := &notificationv1beta3.Alert{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "alert-" + p.Name},
		Spec: notificationv1beta3.AlertSpec{
			ProviderRef:  meta.LocalObjectReference{Name: p.Name},
			EventSources: []notificationv1.CrossNamespaceObjectReference{{Kind: "Kustomization", Name: "*"}},
		},
	}
	if change != nil {
		change(&a.Spec)
	}
	return a
}

func event(change func(*events.Event)) events.Event {
	e := events.Event{
		InvolvedObject: corev1.ObjectReference{APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization", Namespace: "apps", Name: "web"},
		Severity:       eventv1.EventSeverityInfo, Timestamp: metav1.NewTime(time.Unix(1_700_000_000, 0)),
		Reason: meta.ReconciliationSucceededReason, Message: "applied\nDeployment/web configured",
		Metadata:            map[string]string{"revision": "main@sha1:" + commit},
		ReportingController: "kustomize-controller", ReportingInstance: "node-1",
	}
	if change != nil {
		change(&e)
	}
	return e
}

func newTestDispatcher(t *testing.T, objects ...client.Object) (*dispatcher, *said) {
	t.Helper()
	s := &said{}
	d := newDispatcher(newClient(t, objects...), env.Env{Events: s, Log: slog.New(slog.DiscardHandler)})
	d.pause = func(int, time.Duration) time.Duration { return time.Millisecond }
	return d, s
}

// start runs a dispatcher until the test ends.
func start(t *testing.T, d *dispatcher) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the dispatcher does not end")
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited for %s", what)
		case <-tick.C:
		}
	}
}
