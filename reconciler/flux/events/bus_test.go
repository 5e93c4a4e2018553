package events

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// eventServer is the part of an API server that takes events.
type eventServer struct {
	mu     sync.Mutex
	posted []corev1.Event
	counts []int32 // of patches
	status int     // answered instead, if not zero
	asked  int
}

func (s *eventServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.status != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(s.status)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(s.status)})
		return
	}
	var e corev1.Event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch r.Method {
	case http.MethodPost:
		s.posted = append(s.posted, e)
	case http.MethodPatch:
		s.counts = append(s.counts, e.Count)
	}
	w.Header().Set("Content-Type", "application/json")
	e.TypeMeta = metav1.TypeMeta{Kind: "Event", APIVersion: "v1"}
	json.NewEncoder(w).Encode(e)
}

func (s *eventServer) state() (posted []corev1.Event, counts []int32, asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]corev1.Event(nil), s.posted...), append([]int32(nil), s.counts...), s.asked
}

func (s *eventServer) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited for %s", what)
		case <-tick.C:
		}
	}
}

func connection(url string) *rest.Config {
	return &rest.Config{Host: url, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

func newBus(t *testing.T, url string) *Bus {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := kustomizev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return New(Config{REST: connection(url), Scheme: scheme, Instance: "node-1"})
}

func run(t *testing.T, b *Bus) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func kustomization(name string) *kustomizev1.Kustomization {
	return &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{
		Namespace: "apps", Name: name, UID: "u-" + "1", ResourceVersion: "7",
		Annotations: map[string]string{eventv1.Group + "/team": "blue", "other": "x"},
	}}
}

func TestEventBecomesWhatFluxWrites(t *testing.T) {
	api := &eventServer{}
	s := httptest.NewServer(api)
	defer s.Close()
	b := newBus(t, s.URL)
	var told []Event
	cancel := b.Subscribe(func(e Event) { told = append(told, e) })
	b.Event(kustomization("web"), eventv1.EventSeverityError, "BuildFailed", "no kustomization.yaml", map[string]string{"revision": "main@sha1:1"})
	b.Event(kustomization("web"), eventv1.EventSeverityTrace, "Progressing", "a trace", nil)
	cancel()
	b.Event(kustomization("web"), eventv1.EventSeverityInfo, "Unheard", "after the subscription ended", nil)
	run(t, b)
	eventually(t, "three events", func() bool { posted, _, _ := api.state(); return len(posted) == 3 })
	posted, _, _ := api.state()
	e := posted[0]
	if e.Namespace != "apps" || e.InvolvedObject.Kind != "Kustomization" || e.InvolvedObject.APIVersion != "kustomize.toolkit.fluxcd.io/v1" || e.InvolvedObject.UID != "u-1" {
		t.Errorf("object %+v", e.InvolvedObject)
	}
	if e.Type != corev1.EventTypeWarning || e.Reason != "BuildFailed" || e.Count != 1 || e.Source.Component != "kustomize-controller" || e.ReportingController != "kustomize-controller" || e.ReportingInstance != "node-1" || e.LastTimestamp.IsZero() {
		t.Errorf("%+v", e)
	}
	if e.Annotations["kustomize.toolkit.fluxcd.io/revision"] != "main@sha1:1" || e.Annotations["event.toolkit.fluxcd.io/team"] != "blue" || len(e.Annotations) != 2 {
		t.Errorf("annotations %v", e.Annotations)
	}
	if posted[1].Type != corev1.EventTypeNormal {
		t.Errorf("a trace became %s", posted[1].Type)
	}
	if len(told) != 1 || told[0].Metadata["revision"] != "main@sha1:1" || told[0].Severity != "error" {
		t.Errorf("subscriber got %+v", told)
	}
}

func TestRepetitionsAreOneEvent(t *testing.T) {
	api := &eventServer{}
	s := httptest.NewServer(api)
	defer s.Close()
	w, err := newWriter(connection(s.URL), New(Config{}).log)
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	w.now = func() time.Time { return clock }
	b := newBus(t, s.URL)
	say := func(message string) {
		e, err := b.describe(kustomization("web"), eventv1.EventSeverityInfo, "Drift", message, nil)
		if err != nil {
			t.Fatal(err)
		}
		e.Timestamp = metav1.NewTime(clock)
		w.take(t.Context(), record{event: e, kind: corev1.EventTypeNormal})
		for {
			owed, _ := w.known.due(clock)
			if owed == nil {
				return
			}
			w.raise(t.Context(), owed)
		}
	}
	for range 100 {
		say("undone")
	}
	say("something else")
	posted, counts, _ := api.state()
	if len(posted) != 2 || len(counts) != 0 {
		t.Fatalf("within a minute: %d created, counts %v", len(posted), counts)
	}
	if _, wait := w.known.due(clock); wait != rewrite {
		t.Errorf("the count may be written in %s", wait)
	}
	clock = clock.Add(rewrite)
	say("undone")
	posted, counts, _ = api.state()
	if len(posted) != 2 || len(counts) != 1 || counts[0] != 101 {
		t.Fatalf("after a minute: %d created, counts %v", len(posted), counts)
	}
	clock = clock.Add(seriesEnd + time.Second)
	say("undone")
	if posted, _, _ = api.state(); len(posted) != 3 {
		t.Errorf("after five quiet minutes: %d created", len(posted))
	}
	if len(w.known) != 1 {
		t.Errorf("%d series are remembered", len(w.known))
	}
}

func TestRemembersABoundedNumber(t *testing.T) {
	m := memory{}
	now := time.Now()
	for i := range maxSeries + 10 {
		m[identity{byte(i), byte(i >> 8)}] = &series{last: now.Add(time.Duration(i) * time.Millisecond), count: 1, written: 1}
	}
	m.expire(now)
	if len(m) != maxSeries || m[identity{}] != nil {
		t.Errorf("%d series, the oldest among them: %v", len(m), m[identity{}] != nil)
	}
}

func TestAbsentAPIServerDoesNotBlock(t *testing.T) {
	b := newBus(t, "http://127.0.0.1:1")
	for range queueLength + 5 {
		b.Event(kustomization("web"), eventv1.EventSeverityInfo, "R", "m", nil)
	}
	if b.Lost() != 5 {
		t.Errorf("%d events lost, of 5 that did not fit", b.Lost())
	}
}

func TestEventsOutliveARestartOfTheAPIServer(t *testing.T) {
	api := &eventServer{status: http.StatusServiceUnavailable}
	s := httptest.NewServer(api)
	defer s.Close()
	b := newBus(t, s.URL)
	run(t, b)
	b.Event(kustomization("web"), eventv1.EventSeverityInfo, "R", "m", nil)
	eventually(t, "a first attempt", func() bool { _, _, asked := api.state(); return asked > 0 })
	api.answer(0)
	eventually(t, "the event", func() bool { posted, _, _ := api.state(); return len(posted) == 1 })
	if b.Lost() != 0 {
		t.Errorf("%d lost", b.Lost())
	}
}

func TestRefusedEventIsNotRepeated(t *testing.T) {
	api := &eventServer{status: http.StatusForbidden} // the namespace is going away
	s := httptest.NewServer(api)
	defer s.Close()
	b := newBus(t, s.URL)
	run(t, b)
	b.Event(kustomization("web"), eventv1.EventSeverityInfo, "R", "m", nil)
	eventually(t, "the loss", func() bool { return b.Lost() == 1 })
	if _, _, asked := api.state(); asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestLongMessages(t *testing.T) {
	long := strings.Repeat("ä", maxMessage)
	if got := clip(long, maxMessage); len(got) > maxMessage || !strings.HasSuffix(got, "ä…") {
		t.Errorf("%d bytes, ends %q", len(got), got[len(got)-8:])
	}
}
