package events

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	// Each event costs the API server as much as the change it tells of. When many
	// objects change at once the changes come first.
	writesPerSecond = 5
	writeBurst      = 10
	writeTimeout    = 5 * time.Second
	// patience is how long one event may hold up those behind it while the API
	// server is away.
	patience = 30 * time.Second
	retryGap = time.Second
	// maxStored bounds a message in the API server's memory, in bytes.
	maxStored = 4 << 10
)

// writer writes Kubernetes Events. It is used by one goroutine.
type writer struct {
	api    corev1client.EventsGetter
	log    *slog.Logger
	lost   func()
	known  memory
	silent bool // the last event was lost
	now    func() time.Time
}

func newWriter(cfg *rest.Config, log *slog.Logger) (*writer, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = writesPerSecond, writeBurst, nil
	cfg.Timeout = writeTimeout
	api, err := corev1client.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server for events: %w", err)
	}
	return &writer{api: api, log: log, known: memory{}, now: time.Now, lost: func() {}}, nil
}

// run writes what is queued, and counts that rose, until ctx ends.
func (w *writer) run(ctx context.Context, queue <-chan record) error {
	for {
		owed, wait := w.known.due(w.now())
		if owed != nil {
			w.raise(ctx, owed)
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case r := <-queue:
			w.take(ctx, r)
		case <-timer:
		}
	}
}

// take writes an event, or adds it to its series.
func (w *writer) take(ctx context.Context, r record) {
	now := w.now()
	w.known.expire(now)
	id := identify(r.event)
	if s := w.known[id]; s != nil && now.Sub(s.last) <= seriesEnd {
		s.count++
		s.last = r.event.Timestamp.Time
		return
	}
	e := kubernetesEvent(r)
	if w.create(ctx, e) {
		w.known[id] = &series{
			object: types.NamespacedName{Namespace: e.Namespace, Name: e.Name},
			last:   r.event.Timestamp.Time, count: 1, written: 1, wrote: now,
		}
	}
}

func (w *writer) create(ctx context.Context, e *corev1.Event) bool {
	return w.attempt(ctx, func(ctx context.Context) error {
		_, err := w.api.Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil // an attempt before this one arrived
		}
		return err
	})
}

// raise writes the count of a series. If that fails it is tried again when the
// event occurs again.
func (w *writer) raise(ctx context.Context, s *series) {
	s.written, s.wrote = s.count, w.now()
	patch, err := json.Marshal(map[string]any{"count": s.count, "lastTimestamp": metav1.NewTime(s.last)})
	if err != nil {
		return
	}
	w.attempt(ctx, func(ctx context.Context) error {
		_, err := w.api.Events(s.object.Namespace).Patch(ctx, s.object.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	})
}

// attempt repeats a write while the API server is away, but not for long. It
// reports whether the write succeeded.
func (w *writer) attempt(ctx context.Context, write func(context.Context) error) bool {
	until := w.now().Add(patience)
	if w.silent {
		until = w.now() // it was away a moment ago: one attempt
	}
	for {
		err := write(ctx)
		switch {
		case err == nil:
			w.silent = false
			return true
		case ctx.Err() != nil:
			return false
		case refused(err):
			w.lost()
			w.log.Debug("the API server refused an event", "err", err)
			return false
		case !w.now().Before(until):
			w.lost()
			if !w.silent {
				w.log.Warn("events are lost: the API server does not take them", "err", err)
			}
			w.silent = true
			return false
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryGap):
		}
	}
}

// refused reports whether an attempt would fail again: the server answered, and
// not that it is busy. A namespace that is gone takes no events.
func refused(err error) bool {
	status, ok := err.(apierrors.APIStatus)
	return ok && status.Status().Code >= 400 && status.Status().Code < 500 && !apierrors.IsTooManyRequests(err)
}

func kubernetesEvent(r record) *corev1.Event {
	o := r.event.InvolvedObject
	namespace := o.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Annotations: r.annotations,
			Name: fmt.Sprintf("%.230s.%x", o.Name, r.event.Timestamp.UnixNano()),
		},
		InvolvedObject: o, Type: r.kind, Reason: r.event.Reason, Message: clip(r.event.Message, maxStored),
		FirstTimestamp: r.event.Timestamp, LastTimestamp: r.event.Timestamp, Count: 1,
		Source:              corev1.EventSource{Component: r.event.ReportingController, Host: r.event.ReportingInstance},
		ReportingController: r.event.ReportingController, ReportingInstance: r.event.ReportingInstance,
	}
}
