package notify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/runtime/conditions"
	celtypes "github.com/google/cel-go/common/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/internal/status"
)

// pathIndex is the index of Receivers by their path.
const pathIndex = ".status.webhookPath"

func pathOf(o client.Object) []string {
	if path := o.(*notificationv1.Receiver).Status.WebhookPath; path != "" {
		return []string{path}
	}
	return nil
}

// receivers is the controller of Receiver: it gives each a path that only who
// knows its token can know.
type receivers struct {
	client client.Client
	events events.Recorder
}

// Reconcile implements reconcile.Reconciler.
func (c *receivers) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	before := &notificationv1.Receiver{}
	if err := c.client.Get(ctx, request.NamespacedName, before); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !before.DeletionTimestamp.IsZero() {
		err := status.RemoveFinalizer(ctx, c.client, before, notificationv1.NotificationFinalizer, owner)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if before.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	after := before.DeepCopy()
	c.settle(ctx, after)
	after.Status.ObservedGeneration = after.Generation
	if asked, ok := meta.ReconcileAnnotationValue(after.Annotations); ok {
		after.Status.LastHandledReconcileAt = asked
	}
	changed, err := status.Write(ctx, c.client, before, after, owner)
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if changed {
		c.report(after)
	}
	return ctrl.Result{RequeueAfter: nextLook(after)}, nil
}

// nextLook is when the Secret is read again; zero for never.
func nextLook(r *notificationv1.Receiver) time.Duration {
	d := r.GetInterval()
	switch {
	case conditions.IsStalled(r):
		return 0
	case !conditions.IsReady(r):
		d = min(d, time.Minute)
	}
	return d - d/20 + rand.N(d/10+1)
}

// settle sets the conditions and the path.
func (c *receivers) settle(ctx context.Context, r *notificationv1.Receiver) {
	conditions.Delete(r, meta.ReconcilingCondition)
	conditions.Delete(r, meta.StalledCondition)
	if reason, err := checkReceiver(r); err != nil {
		r.Status.WebhookPath = ""
		conditions.MarkFalse(r, meta.ReadyCondition, reason, "%s", err)
		conditions.MarkStalled(r, reason, "%s", err)
		return
	}
	token, err := receiverToken(ctx, c.client, r)
	if err != nil {
		r.Status.WebhookPath = ""
		conditions.MarkFalse(r, meta.ReadyCondition, notificationv1.TokenNotFoundReason, "%s", err)
		return
	}
	r.Status.WebhookPath = r.GetWebhookPath(token)
	conditions.MarkTrue(r, meta.ReadyCondition, meta.SucceededReason, "Receiver initialized for path: %s", r.Status.WebhookPath)
}

func (c *receivers) report(r *notificationv1.Receiver) {
	severity := eventv1.EventSeverityInfo
	if !conditions.IsReady(r) {
		severity = eventv1.EventSeverityError
	}
	// The path is as good as the token: it stays out of events.
	message := "the receiver is ready"
	if severity == eventv1.EventSeverityError {
		message = conditions.GetMessage(r, meta.ReadyCondition)
	}
	c.events.Event(r, severity, conditions.GetReason(r, meta.ReadyCondition), message, nil)
}

// checkReceiver returns what no later attempt can mend.
func checkReceiver(r *notificationv1.Receiver) (reason string, err error) {
	if _, ok := genuineChecks()[r.Spec.Type]; !ok {
		return notificationv1.ValidationFailedReason, fmt.Errorf("receiver type %q is not supported; use one of %s", r.Spec.Type, list(supportedReceivers()))
	}
	if r.Spec.SecretRef == nil {
		return notificationv1.ValidationFailedReason, errors.New("spec.secretRef is missing: name a Secret with the key token")
	}
	if r.Spec.ResourceFilter != "" {
		if _, err := filterExpression(r.Spec.ResourceFilter); err != nil {
			return meta.InvalidCELExpressionReason, fmt.Errorf("spec.resourceFilter: %w", err)
		}
	}
	for i, resource := range r.Spec.Resources {
		if resource.Filter != "" {
			if _, err := filterExpression(resource.Filter); err != nil {
				return meta.InvalidCELExpressionReason, fmt.Errorf("spec.resources[%d].filter: %w", i, err)
			}
		}
		if resource.Name == "*" && resource.MatchLabels == nil {
			return notificationv1.ValidationFailedReason, fmt.Errorf("spec.resources[%d]: name \"*\" needs matchLabels", i)
		}
	}
	return "", nil
}

func filterExpression(text string) (*cel.Expression, error) {
	return cel.NewExpression(text, cel.WithCompile(), cel.WithOutputType(celtypes.BoolType), cel.WithStructVariables("res", "req"))
}

func receiverToken(ctx context.Context, c client.Reader, r *notificationv1.Receiver) (string, error) {
	secret, err := readSecret(ctx, c, r.Namespace, r.Spec.SecretRef.Name)
	if err != nil {
		return "", err
	}
	token, ok := secret.Data["token"]
	if !ok || len(token) == 0 {
		return "", fmt.Errorf("secret %s/%s has no key token", r.Namespace, r.Spec.SecretRef.Name)
	}
	return string(token), nil
}
