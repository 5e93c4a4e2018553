package pool

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Condition is the type of the condition on a Service that says whether it has its addresses.
const Condition = "bothy.dev/LoadBalancerAddress"

// write brings a Service's status up to date, if it is not. The object may be stripped: only what is
// sent changes, and only if nobody has changed the object meanwhile.
func (c *Controller) write(ctx context.Context, svc *corev1.Service, addrs []netip.Addr, problem error) error {
	want := svc.Status.DeepCopy()
	want.LoadBalancer.Ingress = nil
	mode := corev1.LoadBalancerIPModeVIP
	for _, a := range addrs {
		want.LoadBalancer.Ingress = append(want.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a.String(), IPMode: &mode})
	}
	var transition bool
	if Ours(svc) {
		transition = meta.SetStatusCondition(&want.Conditions, condition(svc, problem))
	} else {
		meta.RemoveStatusCondition(&want.Conditions, Condition)
	}
	if equality.Semantic.DeepEqual(*want, svc.Status) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": svc.ResourceVersion},
		"status": map[string]any{
			"loadBalancer": map[string]any{"ingress": orEmpty(want.LoadBalancer.Ingress)}, "conditions": orEmpty(want.Conditions),
		},
	})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	_, err = c.client.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return err
	}
	if transition {
		c.tell(ctx, svc, addrs, problem)
	}
	return nil
}

// orEmpty is a list that JSON writes as one.
func orEmpty[T any](list []T) []T { return slices.Concat([]T{}, list) }

func condition(svc *corev1.Service, problem error) metav1.Condition {
	out := metav1.Condition{
		Type: Condition, Status: metav1.ConditionTrue, Reason: "Assigned", Message: "the addresses are in status.loadBalancer",
		ObservedGeneration: svc.Generation,
	}
	if problem != nil {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, reasonOf(problem), problem.Error()
	}
	return out
}

// tell leaves an event. One that cannot be left is no reason to do anything again.
func (c *Controller) tell(ctx context.Context, svc *corev1.Service, addrs []netip.Addr, problem error) {
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: svc.Name + ".", Namespace: svc.Namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Service", Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, ResourceVersion: svc.ResourceVersion,
		},
		Type: corev1.EventTypeNormal, Reason: "AddressAssigned", Message: fmt.Sprintf("addresses %v", addrs),
		Source: corev1.EventSource{Component: "bothy", Host: c.node}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if problem != nil {
		event.Type, event.Reason, event.Message = corev1.EventTypeWarning, reasonOf(problem), problem.Error()
	}
	if _, err := c.client.CoreV1().Events(svc.Namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
		c.log.Warn("load balancer addresses: leave an event", "service", svc.Namespace+"/"+svc.Name, "err", err)
	}
}
