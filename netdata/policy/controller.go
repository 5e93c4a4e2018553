package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Status is what an operator sees of NetworkPolicy.
type Status struct {
	// Synced says that the API has been read completely by this agent.
	Synced   bool `json:"synced"`
	Policies int  `json:"policies"`
	// Isolated is the number of this node's pod addresses that a policy isolates.
	Isolated int `json:"isolated"`
	// Peers and Rules are rows in the tables.
	Peers int `json:"peers"`
	Rules int `json:"rules"`
	// Problems maps a NetworkPolicy's namespace/name to what of it could not be read, and
	// "tables" to why what is in force is out of date.
	Problems map[string]string `json:"problems,omitempty"`
}

// Controller keeps the tables true to the API.
type Controller struct {
	table Table
	node  string
	log   *slog.Logger
	// settled is a field for tests: it asks the kernel.
	settled func() error
	revoked func(inForce *Plan)
	dirty   chan struct{} // has room for one

	mu         sync.Mutex
	news       chan struct{} // closed when a pod or the API became known
	writer     *Writer
	list       func(ctx context.Context, namespace string) ([]networkingv1.NetworkPolicy, error)
	synced     bool
	pods       map[string]*Pod
	departed   map[string]bool // gone from the API, not from the node
	namespaces map[string]labels.Set
	policies   map[string]*Policy
	attached   map[netip.Addr]PodRef
	planned    map[netip.Addr]uint32
	garbage    bool
	latency    latency
	status     Status
}

// NewController only stores its arguments; node is the name of the Node object.
func NewController(table Table, node string, log *slog.Logger) *Controller {
	return &Controller{
		table: table, node: node, log: log, settled: tables.Settled, revoked: func(*Plan) {},
		dirty: make(chan struct{}, 1), news: make(chan struct{}),
		pods: map[string]*Pod{}, departed: map[string]bool{}, namespaces: map[string]labels.Set{},
		policies: map[string]*Policy{}, attached: map[netip.Addr]PodRef{},
	}
}

// OnRevoke has f called whenever a plan has come into force that may deny what was allowed. It must not wait, and be called
// before Run.
func (c *Controller) OnRevoke(f func(inForce *Plan)) { c.revoked = f }

// Status returns a copy.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Problems = maps.Clone(c.status.Problems)
	return s
}

const (
	// A plan that cannot be put in force is tried again, soon at first.
	retryMin = 100 * time.Millisecond
	retryMax = time.Minute
	// While the API is busy, plans are made for at most this part of the time.
	idleShare = 4
	idleMax   = time.Second
)

// Run works until ctx ends. It calls ready when the tables are true to the API for the first time.
// While the API is away it waits and the tables stay as they are.
func (c *Controller) Run(ctx context.Context, client kubernetes.Interface, ready func()) error {
	c.forgetAPI(client)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip))
	synced, err := c.watch(factory)
	if err != nil {
		return err
	}
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	if err := c.first(); err != nil {
		return err
	}
	ready()
	for c.next(ctx) {
	}
	return nil
}

// forgetAPI is for a second run: what an earlier one has read may be out of date, and a part of the
// policies is worse than none. What is in the tables stays in force.
func (c *Controller) forgetAPI(client kubernetes.Interface) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = func(ctx context.Context, namespace string) ([]networkingv1.NetworkPolicy, error) {
		list, err := client.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	}
	c.synced, c.status.Synced = false, false
	for key := range c.pods {
		if c.hasNetwork(key) {
			c.departed[key] = true
		} else {
			delete(c.pods, key)
		}
	}
	clear(c.namespaces)
	clear(c.policies)
	clear(c.latency.pending)
	clear(c.status.Problems)
}

func (c *Controller) watch(factory informers.SharedInformerFactory) ([]cache.InformerSynced, error) {
	var synced []cache.InformerSynced
	for what, in := range map[string]struct {
		informer cache.SharedIndexInformer
		set      func(key string, obj any)
	}{
		"pods":             {factory.Core().V1().Pods().Informer(), c.podChanged},
		"namespaces":       {factory.Core().V1().Namespaces().Informer(), c.namespaceChanged},
		"network policies": {factory.Networking().V1().NetworkPolicies().Informer(), c.policyChanged},
	} {
		reg, err := in.informer.AddEventHandler(handler(in.set))
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", what, err)
		}
		synced = append(synced, reg.HasSynced)
	}
	return synced, nil
}

// handler calls set with nil for an object that is gone.
func handler(set func(key string, obj any)) cache.ResourceEventHandler {
	call := func(obj, now any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
			set(key, now)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { call(obj, obj) },
		UpdateFunc: func(_, obj any) { call(obj, obj) },
		DeleteFunc: func(obj any) { call(obj, nil) },
	}
}

func (c *Controller) podChanged(key string, obj any) {
	var p *Pod
	if in, ok := obj.(*corev1.Pod); ok {
		p = NewPod(in)
	}
	c.setPod(key, p)
}

func (c *Controller) namespaceChanged(key string, obj any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.namespaces[key]
	in, ok := obj.(*corev1.Namespace)
	switch {
	case !ok:
		delete(c.namespaces, key)
	case known && labels.Equals(was, in.Labels):
		return
	default:
		c.namespaces[key] = in.Labels
	}
	c.wake()
}

func (c *Controller) policyChanged(key string, obj any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in, ok := obj.(*networkingv1.NetworkPolicy)
	if known := c.policies[key]; ok && known != nil && !known.olderThan(in) {
		return
	}
	delete(c.policies, key)
	delete(c.status.Problems, key)
	if ok {
		p := NewPolicy(in)
		c.policies[key] = p
		if err := errors.Join(p.Problems...); err != nil {
			c.log.Warn("part of a NetworkPolicy cannot be read and allows nothing", "policy", key, "err", err)
			c.problem(key, err)
		}
	}
	if c.synced {
		c.latency.begin(key)
	}
	c.wake()
}

// first is the first full pass: only after it may go what an earlier agent wrote.
func (c *Controller) first() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.openWriter(); err != nil {
		return err
	}
	started := time.Now()
	c.synced = true
	if err := c.apply(); err != nil {
		c.synced = false
		return fmt.Errorf("put NetworkPolicy in force: %w", err)
	}
	c.status.Synced = true
	c.tell()
	c.log.Info("network policies in force", "policies", len(c.policies), "isolated", c.status.Isolated,
		"peers", c.status.Peers, "rules", c.status.Rules, "took", time.Since(started))
	return nil
}

// next waits for a change and brings it into force. It returns false when ctx has ended.
func (c *Controller) next(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c.dirty:
	}
	started := time.Now()
	for retry := retryMin; ; retry = min(2*retry, retryMax) {
		err := c.applyNow()
		if err == nil {
			break
		}
		c.log.Warn("network policies are out of date, will try again", "err", err)
		if !sleep(ctx, retry) {
			return false
		}
	}
	c.reap()
	return sleep(ctx, min(idleShare*time.Since(started), idleMax))
}

func (c *Controller) applyNow() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apply()
}

// apply must be called with the lock held.
func (c *Controller) apply() error {
	plan, err := Compile(c.world(), c.writer.Numbers)
	before := c.writer.revoked
	if err == nil {
		var garbage bool
		garbage, err = c.writer.Apply(plan)
		c.garbage = c.garbage || garbage
	}
	if err != nil {
		c.problem("tables", err)
		c.wake()
		return err
	}
	delete(c.status.Problems, "tables")
	c.latency.end()
	c.planned = plan.Identities
	c.count()
	if c.writer.revoked != before {
		c.revoked(plan)
	}
	return nil
}

func (c *Controller) world() *World {
	w := &World{Node: c.node, Pods: c.pods, Namespaces: c.namespaces, Policies: c.policies, Local: map[netip.Addr]*Pod{}}
	for addr, pod := range c.attached {
		w.Local[addr] = c.find(pod)
	}
	return w
}

// reap removes what no packet can need any more, outside the lock: it waits for the kernel.
func (c *Controller) reap() {
	c.mu.Lock()
	garbage, plan := c.garbage, c.writer.InForce()
	c.mu.Unlock()
	if !garbage {
		return
	}
	err := c.settled()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writer.InForce() != plan {
		c.wake() // programs may still be reading what this plan was
		return
	}
	if err == nil {
		err = c.writer.Reap()
	}
	if err != nil {
		// It costs memory, nothing else; the next change is the next try.
		c.log.Warn("policy rules that are not used any more were left in the tables", "err", err)
		return
	}
	c.garbage = false
	c.count()
}

func (c *Controller) openWriter() error {
	if c.writer != nil {
		return nil
	}
	w, err := NewWriter(c.table)
	if err != nil {
		return fmt.Errorf("take over the policy tables: %w", err)
	}
	c.writer = w
	return nil
}

func (c *Controller) count() {
	c.status.Policies = len(c.policies)
	c.status.Peers, c.status.Rules = c.writer.Counts()
	c.status.Isolated = 0
	for _, identity := range c.planned {
		if identity != 0 {
			c.status.Isolated++
		}
	}
}

func (c *Controller) problem(subject string, err error) {
	if c.status.Problems == nil {
		c.status.Problems = map[string]string{}
	}
	c.status.Problems[subject] = err.Error()
}

// wake has the tables looked after; tell, those who wait for a pod.
func (c *Controller) wake() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

func (c *Controller) tell() {
	close(c.news)
	c.news = make(chan struct{})
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
