package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
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
	client  kubernetes.Interface
	factory informers.SharedInformerFactory
	table   Table
	cutter  FlowCutter
	log     *slog.Logger

	zoneMu sync.Mutex
	node   Node

	latency latency
	live    atomic.Pointer[run]

	mu     sync.Mutex
	status Status
}

// NewInformers makes the informers of Services and EndpointSlices that a Controller reads, which
// others may read as well. It drops what the node has no use for before it is cached.
func NewInformers(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip))
}

// NewController only stores its arguments. The zone of the node is read from its Node
// object, and followed.
func NewController(
	client kubernetes.Interface, factory informers.SharedInformerFactory, table Table, cutter FlowCutter, node Node, log *slog.Logger,
) *Controller {
	return &Controller{client: client, factory: factory, table: table, cutter: cutter, node: node, log: log}
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
	slices   cache.Indexer
	health   *healthChecks
	queue    workqueue.TypedRateLimitingInterface[string]
	// begun is set when the first full pass begins. What is heard of earlier is in the informers'
	// caches by then, and needs no turn of its own.
	begun atomic.Bool
}

// byService is the index of EndpointSlices by the namespace/name of their Service.
const byService = "service"

// Run works until ctx ends. It calls ready when the tables are true to the API for the
// first time. While the API is away it waits and the tables stay as they are.
func (c *Controller) Run(ctx context.Context, ready func()) error {
	endpointSlices := c.factory.Discovery().V1().EndpointSlices().Informer()
	if err := indexByService(endpointSlices); err != nil {
		return err
	}
	r, err := c.newRun(c.factory.Core().V1().Services().Lister(), endpointSlices.GetIndexer())
	if err != nil {
		return err
	}
	defer r.health.closeAll()
	serviceSync, err := c.factory.Core().V1().Services().Informer().AddEventHandler(r.handler(serviceKey))
	if err != nil {
		return fmt.Errorf("watch services: %w", err)
	}
	sliceSync, err := endpointSlices.AddEventHandler(r.handler(sliceKey))
	if err != nil {
		return fmt.Errorf("watch endpoint slices: %w", err)
	}
	nodeSync, err := r.followZone(ctx)
	if err != nil {
		return err
	}
	c.factory.StartWithContext(ctx)
	defer r.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), serviceSync.HasSynced, sliceSync.HasSynced, nodeSync) {
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

func (c *Controller) newRun(services corelisters.ServiceLister, endpointSlices cache.Indexer) (*run, error) {
	writer, err := NewWriter(c.table, c.cutter)
	if err != nil {
		return nil, fmt.Errorf("take over the services tables: %w", err)
	}
	return &run{
		Controller: c,
		writer:     writer,
		services:   services,
		slices:     endpointSlices,
		health:     newHealthChecks(c.log),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryMin, retryMax)),
	}, nil
}

// applyAll is the first full pass: only after it may rows without a Service go.
func (r *run) applyAll() error {
	r.begun.Store(true)
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
		err := errors.Join(r.writer.Apply(key, nil), r.health.set(key, 0, 0))
		r.record(key, err)
		return err
	}
	if err != nil {
		return err
	}
	endpointSlices, err := SlicesOf(r.slices, key)
	if err != nil {
		return err
	}
	node := r.nodeNow()
	rows, problems := Compile(svc, endpointSlices, node)
	err = errors.Join(r.writer.Apply(key, rows), r.answerHealthChecks(key, svc, endpointSlices, node))
	r.record(key, errors.Join(append(problems, err)...))
	return err
}

func (r *run) answerHealthChecks(key string, svc *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice, node Node) error {
	port := healthCheckPort(svc)
	if port == 0 {
		return r.health.set(key, 0, 0)
	}
	return r.health.set(key, port, LocalReady(endpointSlices, node.Name))
}

func indexByService(informer cache.SharedIndexInformer) error {
	if _, done := informer.GetIndexer().GetIndexers()[byService]; done {
		return nil
	}
	if err := informer.AddIndexers(cache.Indexers{byService: serviceOfSlice}); err != nil {
		return fmt.Errorf("index endpoint slices: %w", err)
	}
	return nil
}

func serviceOfSlice(obj any) ([]string, error) {
	if key := sliceKey(obj); key != "" {
		return []string{key}, nil
	}
	return nil, nil
}

// SlicesOf returns the EndpointSlices of a Service, a namespace/name, from the informer that a
// Controller has indexed.
func SlicesOf(indexer cache.Indexer, service string) ([]*discoveryv1.EndpointSlice, error) {
	found, err := indexer.ByIndex(byService, service)
	if err != nil {
		return nil, fmt.Errorf("find endpoint slices: %w", err)
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(found))
	for _, obj := range found {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			out = append(out, s)
		}
	}
	return out, nil
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
		if !r.begun.Load() {
			return
		}
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

// sliceKey is the namespace/name of a slice's Service, "" if the slice counts for none.
func sliceKey(obj any) string {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" || foreign(slice.Labels) {
		return ""
	}
	return slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]
}

// AnnotationPrefix begins the names of the annotations that are not dropped.
const AnnotationPrefix = "bothy.dev/"

func strip(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
		annotations := m.GetAnnotations()
		maps.DeleteFunc(annotations, func(k, _ string) bool { return !strings.HasPrefix(k, AnnotationPrefix) })
		m.SetAnnotations(annotations)
	}
	return obj, nil
}
