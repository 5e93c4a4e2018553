package notify

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// owner is the field manager of what is written here.
const owner = "notification-controller"

// Setup registers the controllers. Receivers get their paths, but nobody calls
// them; use [Hooks.Setup] where there is an HTTP server.
func Setup(mgr ctrl.Manager, e env.Env) error { return NewHooks().Setup(mgr, e) }

// Setup registers the controllers, and makes h answer the calls of the manager's
// Receivers. It may be called again with another manager. Alerts are told only
// what is reported through a recorder that is an [events.Publisher].
func (h *Hooks) Setup(mgr ctrl.Manager, e env.Env) error {
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	if err := dispatch(mgr, e); err != nil {
		return fmt.Errorf("set up notifications: %w", err)
	}
	for _, o := range []struct {
		object client.Object
		check  func(client.Object) error
	}{
		{&notificationv1beta3.Provider{}, checkProvider},
		{&notificationv1beta3.Alert{}, checkAlert},
	} {
		c := &objects{client: mgr.GetClient(), events: e.Events, blank: o.object, check: o.check, told: map[string]int64{}}
		if err := ctrl.NewControllerManagedBy(mgr).For(o.object).Complete(c); err != nil {
			return fmt.Errorf("set up notifications: %w", err)
		}
	}
	return h.setupReceivers(mgr, e)
}

// dispatch listens to what is reported, while the manager runs.
func dispatch(mgr ctrl.Manager, e env.Env) error {
	publisher, ok := e.Events.(events.Publisher)
	if !ok {
		e.Log.Warn("alerts are not told of anything: the recorder of events cannot be subscribed to")
		return nil
	}
	d := newDispatcher(mgr.GetClient(), e)
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		cancel := publisher.Subscribe(d.offer)
		defer cancel()
		return d.run(ctx)
	}))
}

func (h *Hooks) setupReceivers(mgr ctrl.Manager, e env.Env) error {
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &notificationv1.Receiver{}, pathIndex, pathOf)
	if err != nil {
		return fmt.Errorf("set up receivers: %w", err)
	}
	r := &receivers{client: mgr.GetClient(), events: e.Events}
	if err := ctrl.NewControllerManagedBy(mgr).For(&notificationv1.Receiver{}).Complete(r); err != nil {
		return fmt.Errorf("set up receivers: %w", err)
	}
	caller := &caller{
		client: mgr.GetClient(), direct: mgr.GetAPIReader(), log: e.Log,
		sameNamespace: e.NoCrossNamespaceRefs, now: time.Now,
	}
	err = mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		h.serve(caller)
		<-ctx.Done()
		h.serve(nil)
		return nil
	}))
	if err != nil {
		return fmt.Errorf("set up receivers: %w", err)
	}
	return nil
}

// list joins names for a sentence.
func list(names []string) string { return strings.Join(names, ", ") }
