package notify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/events"
)

const (
	// incoming is how many events wait to be matched with alerts.
	incoming = 2048
	// perProvider is how many deliveries wait for one provider.
	perProvider = 128
	// sameEvent is how long an event that was told is not told again.
	sameEvent = 5 * time.Minute
	// maxSeen bounds how many events are remembered.
	maxSeen = 4096
	// attempts at a delivery, with pauses that grow from firstPause fourfold.
	attempts     = 4
	firstPause   = time.Second
	longestPause = time.Minute
)

// reasonFailed is Flux's reason for a notification that did not arrive.
const reasonFailed = "NotificationDispatchFailed"

// dispatcher takes events to the providers of the alerts that want them.
type dispatcher struct {
	client        client.Client
	events        events.Recorder
	log           *slog.Logger
	sameNamespace bool
	queue         chan events.Event

	seen map[[sha256.Size]byte]time.Time // used by run only

	mu    sync.Mutex
	lanes map[types.NamespacedName][]delivery // by provider; present while its goroutine runs
	ended sync.WaitGroup

	pause func(attempt int, asked time.Duration) time.Duration
}

// delivery is one event for one alert.
type delivery struct {
	alert *notificationv1beta3.Alert
	event events.Event
}

func newDispatcher(c client.Client, e env.Env) *dispatcher {
	return &dispatcher{
		client: c, events: e.Events, log: e.Log, sameNamespace: e.NoCrossNamespaceRefs,
		queue: make(chan events.Event, incoming), seen: map[[sha256.Size]byte]time.Time{},
		lanes: map[types.NamespacedName][]delivery{}, pause: pauseBefore,
	}
}

// offer is called by whoever reports an event. It does not block.
func (d *dispatcher) offer(e events.Event) {
	select {
	case d.queue <- e:
	default:
		d.log.Warn("an event is not matched with alerts: too many are waiting", "object", objectName(e), "reason", e.Reason)
	}
}

// run matches events with alerts until ctx ends, and then waits for deliveries
// to notice.
func (d *dispatcher) run(ctx context.Context) error {
	defer d.ended.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-d.queue:
			if err := d.match(ctx, e); err != nil && ctx.Err() == nil {
				d.log.Warn("an event is not matched with alerts", "object", objectName(e), "err", err)
			}
		}
	}
}

func (d *dispatcher) match(ctx context.Context, e events.Event) error {
	var alerts notificationv1beta3.AlertList
	// The list is only read.
	if err := d.client.List(ctx, &alerts, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list alerts: %w", err)
	}
	if len(alerts.Items) == 0 || d.repeated(e, time.Now()) {
		return nil
	}
	for i := range alerts.Items {
		a := &alerts.Items[i]
		if d.sameNamespace && a.Namespace != e.InvolvedObject.Namespace {
			continue
		}
		wanted, err := wants(ctx, a, e, d.labels)
		if err != nil {
			d.events.Event(a, eventv1.EventSeverityError, "SourceFetchFailed", fmt.Sprintf("the labels of %s cannot be read: %v", objectName(e), err), nil)
		}
		if wanted {
			d.enqueue(ctx, delivery{a.DeepCopy(), e})
		}
	}
	return nil
}

// repeated reports whether the event was seen a short while ago, and remembers
// it.
func (d *dispatcher) repeated(e events.Event, now time.Time) bool {
	o := e.InvolvedObject
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q", o.Kind, o.Namespace, o.Name, e.Message,
		e.Metadata[eventv1.MetaOriginRevisionKey], e.Metadata[eventv1.MetaRevisionKey], e.Metadata[eventv1.MetaTokenKey]))
	if at, ok := d.seen[key]; ok && now.Sub(at) < sameEvent {
		return true
	}
	if len(d.seen) >= maxSeen {
		for k, at := range d.seen {
			if now.Sub(at) >= sameEvent || len(d.seen) >= maxSeen {
				delete(d.seen, k)
			}
		}
	}
	d.seen[key] = now
	return false
}

// labels reads the labels of a Flux object from the cache.
func (d *dispatcher) labels(ctx context.Context, e events.Event) (labels.Set, error) {
	blank, err := d.client.Scheme().New(e.InvolvedObject.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	object, ok := blank.(client.Object)
	if !ok {
		return nil, fmt.Errorf("%s is no object", e.InvolvedObject.Kind)
	}
	err = d.client.Get(ctx, types.NamespacedName{Namespace: e.InvolvedObject.Namespace, Name: e.InvolvedObject.Name}, object)
	return object.GetLabels(), err
}

// enqueue puts a delivery behind those that wait for the same provider, so that
// they arrive in order and a provider that is down delays no other.
func (d *dispatcher) enqueue(ctx context.Context, one delivery) {
	key := types.NamespacedName{Namespace: one.alert.Namespace, Name: one.alert.Spec.ProviderRef.Name}
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting, running := d.lanes[key]
	if len(waiting) >= perProvider {
		d.log.Warn("a notification is dropped: too many wait for the provider", "provider", key.String(), "object", objectName(one.event))
		return
	}
	d.lanes[key] = append(waiting, one)
	if !running {
		d.ended.Go(func() { d.lane(ctx, key) })
	}
}

// lane delivers what waits for a provider, and ends when nothing does.
func (d *dispatcher) lane(ctx context.Context, key types.NamespacedName) {
	for {
		d.mu.Lock()
		waiting := d.lanes[key]
		if len(waiting) == 0 || ctx.Err() != nil {
			delete(d.lanes, key)
			d.mu.Unlock()
			return
		}
		one := waiting[0]
		d.lanes[key] = waiting[1:]
		d.mu.Unlock()

		if err := d.deliver(ctx, key, one); err != nil && ctx.Err() == nil {
			message := fmt.Sprintf("failed to send notification for %s: %v", objectName(one.event), err)
			d.log.Warn("notification", "alert", one.alert.Namespace+"/"+one.alert.Name, "err", err)
			d.events.Event(one.alert, eventv1.EventSeverityError, reasonFailed, message, nil)
		}
	}
}

func (d *dispatcher) deliver(ctx context.Context, key types.NamespacedName, one delivery) error {
	var provider notificationv1beta3.Provider
	if err := d.client.Get(ctx, key, &provider); err != nil {
		return fmt.Errorf("read provider %s: %w", key, err)
	}
	if provider.Spec.Suspend || !suits(provider.Spec.Type, one.event) {
		return nil
	}
	event := told(one.alert, one.event)
	t, err := newTarget(ctx, d.client, &provider)
	if err != nil {
		return fmt.Errorf("provider %s: %w", key, err)
	}
	if t.commitStatus, err = statusName(ctx, &provider, one.alert, event); err != nil {
		return fmt.Errorf("provider %s: %w", key, err)
	}
	send := formats()[provider.Spec.Type]
	for attempt := 1; ; attempt++ {
		err := t.try(ctx, send, event)
		asked, again := mayTryAgain(err)
		if !again || attempt == attempts {
			return err
		}
		timer := time.NewTimer(d.pause(attempt, asked))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// pauseBefore is how long to wait after a failed attempt; asked is what the
// server wished.
func pauseBefore(attempt int, asked time.Duration) time.Duration {
	d := firstPause
	for range attempt - 1 {
		d *= 4
	}
	d = max(d, asked)
	return min(d+rand.N(d/4+1), longestPause)
}

func objectName(e events.Event) string {
	o := e.InvolvedObject
	return o.Kind + "/" + o.Namespace + "/" + o.Name
}
