package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/netdata/elect"
)

// A write that fails is tried again, soon at first.
const (
	retryMin = 100 * time.Millisecond
	retryMax = time.Minute
)

// everything is the queue's key for a change of the nodes.
const everything = ""

// Controller writes the addresses of Services. It runs on every node and works on one.
type Controller struct {
	client   kubernetes.Interface
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	synced   []cache.InformerSynced
	queue    workqueue.TypedRateLimitingInterface[string]
	pools    []v1alpha1.AddressPool
	node     string
	log      *slog.Logger

	// alloc is nil while another node does the work.
	alloc   *Allocator
	waiting map[string]bool // Services that got nothing
}

// NewController registers with the informers, which the caller starts.
func NewController(
	client kubernetes.Interface, factory informers.SharedInformerFactory, pools []v1alpha1.AddressPool, node string, log *slog.Logger,
) (*Controller, error) {
	if _, err := NewAllocator(pools); err != nil {
		return nil, err
	}
	c := &Controller{
		client: client, pools: pools, node: node, log: log, waiting: map[string]bool{},
		services: factory.Core().V1().Services().Lister(), nodes: factory.Core().V1().Nodes().Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryMin, retryMax)),
	}
	services, err := factory.Core().V1().Services().Informer().AddEventHandler(c.handler(serviceKey))
	if err != nil {
		return nil, fmt.Errorf("watch services: %w", err)
	}
	nodes, err := factory.Core().V1().Nodes().Informer().AddEventHandler(c.handler(func(any) (string, bool) { return everything, true }))
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	c.synced = []cache.InformerSynced{services.HasSynced, nodes.HasSynced}
	return c, nil
}

func (c *Controller) handler(key func(any) (string, bool)) cache.ResourceEventHandler {
	enqueue := func(obj any) {
		if k, ok := key(obj); ok {
			c.queue.Add(k)
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, after any) { enqueue(after) }, DeleteFunc: enqueue}
}

// serviceKey leaves out Services that have nothing to do with load balancers and never had.
func serviceKey(obj any) (string, bool) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return "", false
	}
	return svc.Namespace + "/" + svc.Name, true
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	defer c.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), c.synced...) {
		return nil
	}
	c.queue.Add(everything)
	stop := context.AfterFunc(ctx, c.queue.ShutDown)
	defer stop()
	for c.next(ctx) {
	}
	return nil
}

func (c *Controller) next(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)
	err := c.process(ctx, key)
	switch {
	case err == nil:
		c.queue.Forget(key)
	case ctx.Err() != nil:
	default:
		if !apierrors.IsConflict(err) {
			c.log.Warn("load balancer addresses: will try again", "service", key, "err", err)
		}
		c.queue.AddRateLimited(key)
	}
	return true
}

func (c *Controller) process(ctx context.Context, key string) error {
	if key == everything {
		return c.followNodes(ctx)
	}
	if c.alloc == nil {
		return nil
	}
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil //nolint:nilerr // no Service has such a key, now or at another try
	}
	svc, err := c.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		c.release(key)
		return nil
	}
	if err != nil {
		return err
	}
	return c.apply(ctx, svc)
}

// followNodes takes the work over, or leaves it to another node.
func (c *Controller) followNodes(ctx context.Context) error {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	if elect.First("load balancer addresses", elect.Candidates(writers(nodes))) != c.node {
		c.alloc = nil
		return nil
	}
	if c.alloc == nil {
		return c.takeOver(ctx, nodes)
	}
	c.alloc.Reserve(nodeAddrs(nodes))
	return nil
}

// writers are the nodes that may write: those of the control plane, or all while none is marked as that.
func writers(nodes []*corev1.Node) []*corev1.Node {
	const mark = "node-role.kubernetes.io/control-plane"
	marked := slices.DeleteFunc(slices.Clone(nodes), func(n *corev1.Node) bool { _, is := n.Labels[mark]; return !is })
	if len(marked) == 0 {
		return nodes
	}
	return marked
}

func nodeAddrs(nodes []*corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, n := range nodes {
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				out = append(out, addr)
			}
		}
	}
	return out
}

// takeOver reads from the Services who has what: those with addresses first, the older before the
// younger.
func (c *Controller) takeOver(ctx context.Context, nodes []*corev1.Node) error {
	all, err := c.services.List(labels.Everything())
	if err != nil {
		return err
	}
	alloc, err := NewAllocator(c.pools)
	if err != nil {
		return err
	}
	alloc.Reserve(nodeAddrs(nodes))
	c.alloc, c.waiting = alloc, map[string]bool{}
	slices.SortFunc(all, func(a, b *corev1.Service) int {
		return cmp.Or(
			cmp.Compare(len(b.Status.LoadBalancer.Ingress), len(a.Status.LoadBalancer.Ingress)),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name),
		)
	})
	for _, svc := range all {
		if err := c.apply(ctx, svc); err != nil {
			c.queue.AddRateLimited(svc.Namespace + "/" + svc.Name)
		}
	}
	return nil
}

func (c *Controller) apply(ctx context.Context, svc *corev1.Service) error {
	key := svc.Namespace + "/" + svc.Name
	if !Ours(svc) {
		c.release(key)
		if svc.Spec.Type != corev1.ServiceTypeLoadBalancer && slices.ContainsFunc(statusAddrs(svc), c.alloc.Holds) {
			return c.write(ctx, svc, nil, nil)
		}
		return nil
	}
	req, err := RequestOf(svc)
	var addrs []netip.Addr
	if err == nil {
		addrs, err = c.alloc.Assign(req)
	} else {
		c.release(key)
	}
	if lost := slices.ContainsFunc(statusAddrs(svc), func(a netip.Addr) bool { return !slices.Contains(addrs, a) }); lost {
		c.wakeWaiting(key)
	}
	delete(c.waiting, key)
	if err != nil {
		c.waiting[key] = true
	}
	return c.write(ctx, svc, addrs, err)
}

func (c *Controller) release(key string) {
	delete(c.waiting, key)
	if c.alloc.Release(key) {
		c.wakeWaiting(key)
	}
}

// wakeWaiting has Services that got nothing ask again, because one gave something back.
func (c *Controller) wakeWaiting(except string) {
	for key := range c.waiting {
		if key != except {
			c.queue.Add(key)
		}
	}
}

func reasonOf(err error) string {
	if errors.Is(err, ErrExhausted) {
		return "PoolExhausted"
	}
	return "NotPossible"
}
