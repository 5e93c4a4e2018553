package events

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// queueLength is how many events wait for the API server. A site of 500
// Kustomizations reports about a thousand when it starts.
const queueLength = 4096

// maxMessage is the length that Flux's event type allows, in bytes.
const maxMessage = 39_000

// Config is what a bus needs.
type Config struct {
	// REST is the connection that Kubernetes Events are written with. It is
	// copied. Nil writes none; subscribers are told all the same.
	REST *rest.Config
	// Scheme knows the kinds that are reported about.
	Scheme *runtime.Scheme
	// Instance is who reports, such as the machine's name.
	Instance string
	Log      *slog.Logger
}

// Bus takes events from controllers to the API server and to subscribers. It
// may be used by several goroutines, before and while Run runs.
type Bus struct {
	cfg   Config
	log   *slog.Logger
	queue chan record
	lost  atomic.Uint64

	mu          sync.Mutex
	subscribers map[int]func(Event)
	next        int
}

var (
	_ Recorder  = (*Bus)(nil)
	_ Publisher = (*Bus)(nil)
)

// record is an event on its way to the API server.
type record struct {
	event       Event
	kind        string // corev1.EventTypeNormal or Warning
	annotations map[string]string
}

// New returns a bus that nobody drains yet.
func New(cfg Config) *Bus {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Bus{cfg: cfg, log: cfg.Log, queue: make(chan record, queueLength), subscribers: map[int]func(Event){}}
}

// Run writes Kubernetes Events until ctx ends. Events that are not written by
// then are lost.
func (b *Bus) Run(ctx context.Context) error {
	if b.cfg.REST == nil {
		return b.discard(ctx)
	}
	w, err := newWriter(b.cfg.REST, b.log)
	if err != nil {
		return err
	}
	w.lost = func() { b.lost.Add(1) }
	return w.run(ctx, b.queue)
}

func (b *Bus) discard(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.queue:
		}
	}
}

// Lost is how many events did not reach the API server.
func (b *Bus) Lost() uint64 { return b.lost.Load() }

// Subscribe implements [Publisher].
func (b *Bus) Subscribe(tell func(Event)) (cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := b.next
	b.next++
	b.subscribers[id] = tell
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subscribers, id)
	}
}

// Event implements [Recorder].
func (b *Bus) Event(object client.Object, severity, reason, message string, metadata map[string]string) {
	e, err := b.describe(object, severity, reason, message, metadata)
	if err != nil {
		b.log.Error("an event cannot be reported", "reason", reason, "err", err)
		return
	}
	select {
	case b.queue <- record{event: e, kind: kubernetesType(severity), annotations: annotations(e)}:
	default:
		b.lost.Add(1)
	}
	if severity == eventv1.EventSeverityTrace {
		return
	}
	for _, tell := range b.listeners() {
		tell(e)
	}
}

func (b *Bus) listeners() []func(Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.subscribers))
}

// describe copies what the event needs, since the caller goes on changing the
// object.
func (b *Bus) describe(object client.Object, severity, reason, message string, metadata map[string]string) (Event, error) {
	gvk := object.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		if b.cfg.Scheme == nil {
			return Event{}, errors.New("the object does not say its kind and there is no scheme to look it up")
		}
		var err error
		if gvk, err = apiutil.GVKForObject(object, b.cfg.Scheme); err != nil {
			return Event{}, err
		}
	}
	facts := make(map[string]string, len(metadata))
	for key, value := range object.GetAnnotations() {
		if strings.HasPrefix(key, eventv1.Group+"/") {
			facts[key] = value
		}
	}
	maps.Copy(facts, metadata)
	return Event{
		InvolvedObject: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind,
			Namespace: object.GetNamespace(), Name: object.GetName(),
			UID: object.GetUID(), ResourceVersion: object.GetResourceVersion(),
		},
		Severity: severity, Timestamp: metav1.NewTime(time.Now()),
		Reason: reason, Message: clip(message, maxMessage), Metadata: facts,
		ReportingController: reporter(gvk.Group), ReportingInstance: b.cfg.Instance,
	}, nil
}

// reporter is the name of the Flux controller that people expect to hear of a
// kind from.
func reporter(group string) string {
	name, _, _ := strings.Cut(group, ".")
	switch name {
	case "kustomize", "source", "helm", "notification":
		return name + "-controller"
	}
	return "bothy"
}

// annotations are the metadata as Flux writes them on a Kubernetes Event: under
// the group of the object.
func annotations(e Event) map[string]string {
	if len(e.Metadata) == 0 {
		return nil
	}
	group := e.InvolvedObject.GroupVersionKind().Group
	out := make(map[string]string, len(e.Metadata))
	for key, value := range e.Metadata {
		if !strings.Contains(key, "/") {
			key = group + "/" + key
		}
		out[key] = value
	}
	return out
}

func kubernetesType(severity string) string {
	if severity == eventv1.EventSeverityError {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// clip shortens text to n bytes without cutting a character.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-len("…")], "") + "…"
}
