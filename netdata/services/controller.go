package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Status is what an operator sees of Services.
type Status struct {
	// Synced says that the API has been read completely by this agent.
	Synced    bool `json:"synced"`
	Services  int  `json:"services"`
	Frontends int  `json:"frontends"`
	Backends  int  `json:"backends"`
	// Problems maps a Service's namespace/name to what is wrong with it.
	Problems map[string]string `json:"problems,omitempty"`
}

// Controller keeps the tables true to the API.
type Controller struct {
	client kubernetes.Interface
	table  Table
	cutter FlowCutter
	node   Node
	log    *slog.Logger

	latency latency
	live    atomic.Pointer[run]

	mu     sync.Mutex
	status Status
}

// NewController only stores its arguments.
func NewController(client kubernetes.Interface, table Table, cutter FlowCutter, node Node, log *slog.Logger) *Controller {
	return &Controller{client: client, table: table, cutter: cutter, node: node, log: log}
}

// Status returns a copy.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Problems = make(map[string]string, len(c.status.Problems))
	for k, v := range c.status.Problems {
		s.Problems[k] = v
	}
	return s
}

// A Service that fails is tried again, soon at first.
const (
	retryMin = 100 * time.Millisecond
	retryMax = time.Minute
)

type run struct {
	*Controller
	writer   *Writer
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	queue    workqueue.TypedRateLimitingInterface[string]
}

// Run works until ctx ends. It calls ready when the tables are true to the API for the
// first time. While the API is away it waits and the tables stay as they are.
func (c *Controller) Run(ctx context.Context, ready func()) error {
	writer, err := NewWriter(c.table, c.cutter)
	if err != nil {
		return fmt.Errorf("take over the services tables: %w", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithTransform(strip))
	r := &run{
		Controller: c,
		writer:     writer,
		services:   factory.Core().V1().Services().Lister(),
		slices:     factory.Discovery().V1().EndpointSlices().Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryMin, retryMax)),
	}
	serviceSync, err := factory.Core().V1().Services().Informer().AddEventHandler(r.handler(serviceKey))
	if err != nil {
		return fmt.Errorf("watch services: %w", err)
	}
	sliceSync, err := factory.Discovery().V1().EndpointSlices().Informer().AddEventHandler(r.handler(sliceKey))
	if err != nil {
		return fmt.Errorf("watch endpoint slices: %w", err)
	}
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	defer r.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), serviceSync.HasSynced, sliceSync.HasSynced) {
		return nil
	}
	c.live.Store(r)
	if err := r.applyAll(); err != nil {
		return err
	}
	ready()
	stop := context.AfterFunc(ctx, r.queue.ShutDown)
	defer stop()
	for r.next() {
	}
	return nil
}

// applyAll is the first full pass: only after it may rows without a Service go.
func (r *run) applyAll() error {
	all, err := r.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	started := time.Now()
	for _, svc := range all {
		key := svc.Namespace + "/" + svc.Name
		if err := r.apply(key); err != nil {
			r.queue.AddRateLimited(key)
		}
	}
	if err := r.writer.Complete(); err != nil {
		return fmt.Errorf("complete the services tables: %w", err)
	}
	r.mu.Lock()
	r.status.Synced = true
	r.mu.Unlock()
	frontends, backends := r.writer.Counts()
	r.log.Info("services in force", "services", len(all), "frontends", frontends, "backends", backends, "took", time.Since(started))
	return nil
}

func (r *run) next() bool {
	key, shutdown := r.queue.Get()
	if shutdown {
		return false
	}
	defer r.queue.Done(key)
	if err := r.apply(key); err != nil {
		r.log.Warn("service not in force, will try again", "service", key, "err", err)
		r.queue.AddRateLimited(key)
		return true
	}
	r.latency.end(key)
	r.queue.Forget(key)
	return true
}

// apply brings one Service into the tables. It returns what is worth another try;
// what only a change of the object can cure is a problem in the status alone.
func (r *run) apply(key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil //nolint:nilerr // no Service has such a key, now or at another try
	}
	svc, err := r.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		err := r.writer.Apply(key, nil)
		r.record(key, err)
		return err
	}
	if err != nil {
		return err
	}
	endpointSlices, err := r.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}))
	if err != nil {
		return err
	}
	rows, problems := Compile(svc, endpointSlices, r.node)
	err = r.writer.Apply(key, rows)
	r.record(key, errors.Join(append(problems, err)...))
	return err
}

func (r *run) record(key string, err error) {
	frontends, backends := r.writer.Counts()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Services = len(r.writer.owned)
	r.status.Frontends, r.status.Backends = frontends, backends
	if err == nil {
		delete(r.status.Problems, key)
		return
	}
	if r.status.Problems == nil {
		r.status.Problems = map[string]string{}
	}
	r.status.Problems[key] = err.Error()
}

func (r *run) handler(key func(any) string) cache.ResourceEventHandler {
	enqueue := func(obj any) {
		if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = unknown.Obj
		}
		if k := key(obj); k != "" {
			r.latency.begin(k)
			r.queue.Add(k)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue,
		UpdateFunc: func(before, after any) {
			// A slice may be handed to another Service.
			if key(before) != key(after) {
				enqueue(before)
			}
			enqueue(after)
		},
		DeleteFunc: enqueue,
	}
}

func serviceKey(obj any) string {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return ""
	}
	return svc.Namespace + "/" + svc.Name
}

func sliceKey(obj any) string {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" {
		return ""
	}
	return slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]
}

// strip drops what the node has no use for, before it is cached.
func strip(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return obj, nil
}
