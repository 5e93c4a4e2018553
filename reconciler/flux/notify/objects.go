package notify

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"sync"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
)

// reasonInvalid is Flux's reason for settings that cannot work.
const reasonInvalid = "InvalidConfig"

// objects is the controller of a kind without status: it says once per
// generation what is wrong with an object, and lets go of those that an earlier
// notification-controller holds.
type objects struct {
	client client.Client
	events events.Recorder
	blank  client.Object
	check  func(client.Object) error

	mu   sync.Mutex
	told map[string]int64 // generation by name
}

// Reconcile implements reconcile.Reconciler.
func (c *objects) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	o := c.blank.DeepCopyObject().(client.Object)
	if err := c.client.Get(ctx, request.NamespacedName, o); err != nil {
		c.forget(request.String())
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !o.GetDeletionTimestamp().IsZero() {
		err := status.RemoveFinalizer(ctx, c.client, o, notificationv1.NotificationFinalizer, owner)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if err := c.check(o); err != nil && c.first(request.String(), o.GetGeneration()) {
		c.events.Event(o, eventv1.EventSeverityError, reasonInvalid, err.Error(), nil)
	}
	return ctrl.Result{}, nil
}

func (c *objects) first(name string, generation int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if told, ok := c.told[name]; ok && told == generation {
		return false
	}
	c.told[name] = generation
	return true
}

func (c *objects) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.told, name)
}

func checkProvider(o client.Object) error {
	p := o.(*notificationv1beta3.Provider)
	if _, ok := formats()[p.Spec.Type]; !ok {
		return fmt.Errorf("provider type %q is not supported, and nothing is sent; use one of %s", p.Spec.Type, list(supported()))
	}
	if p.Spec.ServiceAccountName != "" {
		return fmt.Errorf("spec.serviceAccountName is for cloud providers, which are not supported; use spec.secretRef")
	}
	if p.Spec.CommitStatusExpr != "" {
		if _, err := statusExpression(p.Spec.CommitStatusExpr); err != nil {
			return fmt.Errorf("spec.commitStatusExpr: %w", err)
		}
	}
	if p.Spec.Address != "" {
		if _, err := addressOf(p.Spec.Type, p.Spec.Address); err != nil {
			return fmt.Errorf("spec.address: %w", err)
		}
	} else if p.Spec.SecretRef == nil {
		return fmt.Errorf("give spec.address, or a Secret with the key address in spec.secretRef")
	}
	return nil
}

func checkAlert(o client.Object) error {
	a := o.(*notificationv1beta3.Alert)
	for field, expressions := range map[string][]string{"inclusionList": a.Spec.InclusionList, "exclusionList": a.Spec.ExclusionList} {
		for i, text := range expressions {
			if _, err := regexp.Compile(text); err != nil {
				return fmt.Errorf("spec.%s[%d]: %w", field, i, err)
			}
		}
	}
	return nil
}

// addressOf checks where a provider sends to. Addresses of Git servers may be
// those that git takes.
func addressOf(kind, address string) (*url.URL, error) {
	if isCommitStatus(kind) {
		g, err := parseGitAddress(address)
		if err != nil {
			return nil, err
		}
		return g.server, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("is not an address such as https://host/path")
	}
	return u, nil
}
