package agent

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typedcoordination "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/bothy-os/bothy/internal/kube"
)

const (
	// turnLease is held by the machine that is about to get another operating system, from
	// before its restart until it runs what Git names.
	turnNamespace, turnLease = "kube-system", "bothy-os-update"
	// turnSpare is what a machine may take beside its trial: two restarts, and a second try.
	turnSpare = 30 * time.Minute
	turnRetry = 5 * time.Second
)

// turn is a machine's place among those of its site: only one is restarted at a time. What
// has passed is measured here, by this machine's clock, from when a holder was first seen.
type turn struct {
	leases typedcoordination.LeaseInterface
	self   string

	holder  string
	renewed time.Time
	since   time.Time
}

// newTurn returns nil for a machine that is alone.
func (o *osUpdates) newTurn() (*turn, error) {
	if len(o.enrolled().Members) < 2 {
		return nil, nil
	}
	config, err := kube.Config(o.paths.Kubeconfig(statusIdentity), osComponent)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &turn{leases: client.CoordinationV1().Leases(turnNamespace), self: o.env.Name}, nil
}

// take waits until it is this machine's turn, which it says for as long as it may take.
func (t *turn) take(ctx context.Context, limit time.Duration, say func(string)) error {
	if t == nil {
		return nil
	}
	for {
		holder, err := t.try(ctx, limit)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			say("for the API, which says whose turn it is: " + err.Error())
		case holder == t.self:
			return nil
		default:
			say(fmt.Sprintf("for %s, whose operating system is being replaced", holder))
		}
		wait(ctx, turnRetry)
	}
}

// try returns whose turn it is: this machine's, if nobody else has it, or has had it for longer than
// it said.
func (t *turn) try(ctx context.Context, limit time.Duration) (holder string, err error) {
	lease, err := t.leases.Get(ctx, turnLease, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease, err = t.leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: turnLease, Namespace: turnNamespace}, Spec: t.mine(limit)}, metav1.CreateOptions{})
	}
	if err != nil {
		return "", err
	}
	now := text(lease.Spec.HolderIdentity)
	renewed := time.Time{}
	if lease.Spec.RenewTime != nil {
		renewed = lease.Spec.RenewTime.Time
	}
	if now != t.holder || !renewed.Equal(t.renewed) || t.since.IsZero() {
		t.holder, t.renewed, t.since = now, renewed, time.Now()
	}
	if now == t.self {
		return now, nil
	}
	if now != "" && time.Since(t.since) < seconds(lease.Spec.LeaseDurationSeconds) {
		return now, nil
	}
	lease.Spec = t.mine(limit)
	if _, err := t.leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return "", err // somebody else may have been faster: look again
	}
	return t.self, nil
}

func (t *turn) mine(limit time.Duration) coordinationv1.LeaseSpec {
	length := int32((limit + turnSpare) / time.Second)
	now := metav1.NowMicro()
	return coordinationv1.LeaseSpec{HolderIdentity: &t.self, LeaseDurationSeconds: &length, AcquireTime: &now, RenewTime: &now}
}

// pass lets the next one have its turn. A machine whose turn it is not changes nothing.
func (t *turn) pass(ctx context.Context) error {
	if t == nil {
		return nil
	}
	lease, err := t.leases.Get(ctx, turnLease, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || text(lease.Spec.HolderIdentity) != t.self {
		return err
	}
	nobody := ""
	lease.Spec.HolderIdentity = &nobody
	_, err = t.leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func seconds(n *int32) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * time.Second
}
