package pool

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

func balancer(name string, created int64) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", CreationTimestamp: metav1.Unix(created, 0)}}
	s.Spec.Type, s.Spec.IPFamilies = corev1.ServiceTypeLoadBalancer, []corev1.IPFamily{corev1.IPv4Protocol}
	s.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
	return s
}

func holding(s *corev1.Service, ip string) *corev1.Service {
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	return s
}

type running struct {
	*testing.T
	client *fake.Clientset
}

// run starts a controller on node "a" over a pool of two addresses.
func run(t *testing.T, services ...*corev1.Service) running {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	client := fake.NewClientset(node)
	r := running{t, client}
	for _, s := range services {
		r.create(s)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := NewController(client, factory, []v1alpha1.AddressPool{{Name: "site", Addresses: []string{"192.0.2.1-192.0.2.2"}}},
		"a", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	factory.StartWithContext(ctx)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r running) create(s *corev1.Service) {
	r.Helper()
	if _, err := r.client.CoreV1().Services(s.Namespace).Create(r.Context(), s, metav1.CreateOptions{}); err != nil {
		r.Fatal(err)
	}
}

// expect waits until the Service has the address, "" for none, and a condition with the reason.
func (r running) expect(name, ip, reason string) {
	r.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := r.check(name, ip, reason)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.Fatal(err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (r running) check(name, ip, reason string) error {
	s, err := r.client.CoreV1().Services("default").Get(r.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	got := ""
	for _, in := range s.Status.LoadBalancer.Ingress {
		got += in.IP
	}
	c := meta.FindStatusCondition(s.Status.Conditions, Condition)
	if got != ip || c == nil || c.Reason != reason {
		return fmt.Errorf("%s has %q and the condition %+v, want %q and %s", name, got, c, ip, reason)
	}
	return nil
}

func TestControllerAssignsAndSaysWhenItCannot(t *testing.T) {
	r := run(t, balancer("first", 1), balancer("second", 2))
	r.expect("first", "192.0.2.1", "Assigned")
	r.expect("second", "192.0.2.2", "Assigned")
	r.create(balancer("third", 3))
	r.expect("third", "", "PoolExhausted")
	events, err := r.client.CoreV1().Events("default").List(r.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) == 0 {
		t.Errorf("no event: %v", err)
	}
	// What one gives back, the one that waits gets.
	if err := r.client.CoreV1().Services("default").Delete(r.Context(), "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.expect("third", "192.0.2.1", "Assigned")
	bad := balancer("bad", 4)
	bad.Spec.LoadBalancerIP = "203.0.113.1"
	r.create(bad)
	r.expect("bad", "", "NotPossible")
}

func TestControllerKeepsWhatServicesHave(t *testing.T) {
	r := run(t, balancer("old", 1), holding(balancer("younger", 2), "192.0.2.1"), holding(balancer("youngest", 3), "192.0.2.1"))
	r.expect("younger", "192.0.2.1", "Assigned")
	r.expect("youngest", "192.0.2.2", "Assigned")
	r.expect("old", "", "PoolExhausted")
}
