package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// lockedTable lets a test look while the controller runs.
type lockedTable struct {
	mu sync.Mutex
	*fakeTable
}

func (l *lockedTable) Lock(f func(*fakeTable)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.fakeTable)
}

func (l *lockedTable) PutPolicyRules(r []tables.PolicyRule) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fakeTable.PutPolicyRules(r)
}

func (l *lockedTable) SetIdentity(a netip.Addr, identity uint32) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fakeTable.SetIdentity(a, identity)
}

type controllerTest struct {
	*Controller
	t      *testing.T
	table  *lockedTable
	client *fake.Clientset
}

func newControllerTest(t *testing.T, objects ...any) *controllerTest {
	table := &lockedTable{fakeTable: newFakeTable()}
	c := NewController(table, "here", slog.New(slog.DiscardHandler))
	c.settled = func() error { return nil }
	client := fake.NewClientset()
	for _, o := range objects {
		create(t, client, o)
	}
	return &controllerTest{Controller: c, t: t, table: table, client: client}
}

func create(t *testing.T, client *fake.Clientset, o any) {
	t.Helper()
	var err error
	switch o := o.(type) {
	case *corev1.Pod:
		_, err = client.CoreV1().Pods(o.Namespace).Create(t.Context(), o, metav1.CreateOptions{})
	case *networkingv1.NetworkPolicy:
		_, err = client.NetworkingV1().NetworkPolicies(o.Namespace).Create(t.Context(), o, metav1.CreateOptions{})
	default:
		err = fmt.Errorf("unknown object %T", o)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// run starts the controller and returns when it is ready.
func (c *controllerTest) run() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- c.Run(ctx, c.client, func() { close(ready) }) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		c.t.Fatalf("Run returned %v", err)
	case <-time.After(10 * time.Second):
		c.t.Fatal("not ready after 10 s")
	}
}

func (c *controllerTest) eventually(what string, cond func() error) {
	c.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			c.t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// connect does what CNI ADD does, and returns the identity the pod got.
func (c *controllerTest) connect(ref PodRef, addr string) uint32 {
	c.t.Helper()
	a, got := netip.MustParseAddr(addr), uint32(1)
	err := c.Connect(ref, []netip.Addr{a}, func(a netip.Addr, identity uint32) error {
		c.table.Lock(func(f *fakeTable) { f.identities[a] = identity })
		got = identity
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func (c *controllerTest) identity(addr string) (identity uint32) {
	c.table.Lock(func(f *fakeTable) { identity = f.identities[netip.MustParseAddr(addr)] })
	return identity
}

func localPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "x", UID: types.UID("uid-" + name), Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: "here"},
	}
}

func denyIngress(name, app string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "x"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		},
	}
}

func ref(name string) PodRef {
	return PodRef{Namespace: "x", Name: name, UID: types.UID("uid-" + name)}
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestAPodWaitsUntilItIsKnown(t *testing.T) {
	c := newControllerTest(t)
	if err := c.Await(expired(t), ref("a")); err == nil || !strings.Contains(err.Error(), "the API has not been read") {
		t.Errorf("before the API was read: %v", err)
	}
	c.run()
	if err := c.Await(expired(t), ref("a")); err == nil || !strings.Contains(err.Error(), "pod x/a is not known") {
		t.Errorf("before the pod came: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- c.Await(t.Context(), ref("a")) }()
	create(t, c.client, localPod("a"))
	if err := <-waited; err != nil {
		t.Errorf("after it came: %v", err)
	}
	namesake := ref("a")
	namesake.UID = "an earlier one"
	if err := c.Await(expired(t), namesake); err == nil {
		t.Error("another pod of the same name was taken for it")
	}
	if err := c.Await(expired(t), PodRef{}); err != nil {
		t.Errorf("what is no pod of the cluster has nothing to wait for: %v", err)
	}
}

// Watches are not ordered between each other: the policy may be told of after the pod.
func TestAPolicyOlderThanThePodIsInForceFirst(t *testing.T) {
	c := newControllerTest(t, localPod("a"))
	c.run()
	late := denyIngress("late", "a")
	late.ResourceVersion = "7"
	c.mu.Lock()
	c.list = func(_ context.Context, namespace string) ([]networkingv1.NetworkPolicy, error) {
		if namespace != "x" {
			return nil, fmt.Errorf("asked for namespace %q", namespace)
		}
		return []networkingv1.NetworkPolicy{*late}, nil
	}
	c.mu.Unlock()
	if err := c.Await(t.Context(), ref("a")); err != nil {
		t.Fatal(err)
	}
	if got := c.connect(ref("a"), "10.0.0.2"); got&tables.IsolatedIngress == 0 {
		t.Errorf("identity %#x, want it isolated", got)
	}
	// The watch then tells what was before: it must not open the pod again.
	before := denyIngress("late", "nobody")
	before.ResourceVersion = "6"
	c.policyChanged("x/late", before)
	if err := c.applyNow(); err != nil {
		t.Fatal(err)
	}
	if got := c.identity("10.0.0.2"); got&tables.IsolatedIngress == 0 {
		t.Errorf("identity %#x after an old event, want it isolated", got)
	}
}

func TestARestartedAgentKeepsWhatIsInTheTables(t *testing.T) {
	c := newControllerTest(t, localPod("a"), denyIngress("deny", "a"))
	const pinned = tables.IsolatedEgress | 5
	kept := tables.PolicyRule{Subject: pinned, Proto: tables.TCP, Port: 80, PortBits: 16}
	c.table.identities[netip.MustParseAddr("10.0.0.2")] = pinned
	c.table.rules[kept] = true
	if got := c.connect(ref("a"), "10.0.0.2"); got != pinned {
		t.Errorf("before the API was read the identity is %#x, want %#x as it was", got, pinned)
	}
	if got := c.connect(ref("b"), "10.0.0.3"); got != tables.DenyAll {
		t.Errorf("a pod nobody knows has identity %#x, want it to be denied everything", got)
	}
	if got := c.connect(PodRef{}, "10.0.0.4"); got != 0 {
		t.Errorf("what is no pod of the cluster has identity %#x", got)
	}
	if c.table.writes != 0 {
		t.Errorf("%d rows were written before the API was read", c.table.writes)
	}
	c.run()
	if got := c.identity("10.0.0.2"); got == pinned || got&tables.IsolatedIngress == 0 || got&tables.SubjectMax == 5 {
		t.Errorf("identity %#x, want ingress isolated under a number that is not in the tables", got)
	}
	if got := c.identity("10.0.0.3"); got != tables.DenyAll {
		t.Errorf("identity of an unknown pod is %#x", got)
	}
	c.eventually("the rule of the earlier agent to go", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.table.rules[kept] {
			c.wake()
			return errors.New("it is there")
		}
		return nil
	})
}

func TestAPodKeepsItsPolicyUntilItsNetworkIsTakenAway(t *testing.T) {
	c := newControllerTest(t, localPod("a"), denyIngress("deny", "a"))
	c.run()
	was := c.connect(ref("a"), "10.0.0.2")
	c.setPod("x/a", nil)
	if err := c.applyNow(); err != nil {
		t.Fatal(err)
	}
	if got := c.identity("10.0.0.2"); got != was || was&tables.IsolatedIngress == 0 {
		t.Errorf("identity went from %#x to %#x when the API forgot the pod", was, got)
	}
	c.Disconnect(netip.MustParseAddr("10.0.0.2"))
	if err := c.Await(expired(t), ref("a")); err == nil {
		t.Error("the pod is still known after its last address went")
	}
}

func TestFailedWriteIsTriedAgain(t *testing.T) {
	c := newControllerTest(t, localPod("a"))
	c.run()
	c.connect(ref("a"), "10.0.0.2")
	c.table.Lock(func(f *fakeTable) { f.fail = errors.New("no memory") })
	create(t, c.client, denyIngress("deny", "a"))
	c.eventually("the problem to be told", func() error {
		if p := c.Status().Problems["tables"]; p != "no memory" {
			return fmt.Errorf("it is %q", p)
		}
		return nil
	})
	c.table.Lock(func(f *fakeTable) { f.fail = nil })
	c.eventually("the policy to be in force", func() error {
		if s := c.Status(); s.Isolated != 1 || len(s.Problems) > 0 || c.identity("10.0.0.2") == 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}
