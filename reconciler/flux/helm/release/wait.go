package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"helm.sh/helm/v4/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// errInterrupted is in the chain of errors about waits that were ended because
// something newer is wanted.
var errInterrupted = errors.New("the wait was ended: something newer is wanted")

// waiter waits for objects by watching them, one by one and only those that are
// not ready at once.
type waiter struct {
	objects dynamic.Interface
	// ctx ends when waiting makes no sense any more.
	ctx context.Context //nolint:containedctx // Helm's waits are not given one
	// interrupted ends waits for objects to become ready, but not hooks, which
	// may be migrations of a database.
	interrupted context.Context //nolint:containedctx // as above
	// aside runs what only waits.
	aside func(func())
	// custom says how healthy objects of some kinds are.
	custom map[schema.GroupKind]*cel.StatusEvaluator

	strategy kube.WaitStrategy
}

// healthOf compiles the expressions of a release.
func healthOf(checks []kustomize.CustomHealthCheck) (map[schema.GroupKind]*cel.StatusEvaluator, error) {
	custom := map[schema.GroupKind]*cel.StatusEvaluator{}
	for i, check := range checks {
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return nil, fmt.Errorf("spec.healthCheckExprs[%d]: %w", i, err)
		}
		custom[schema.FromAPIVersionAndKind(check.APIVersion, check.Kind).GroupKind()] = evaluator
	}
	return custom, nil
}

// with returns a waiter of another strategy.
func (w *waiter) with(strategy kube.WaitStrategy) *waiter {
	other := *w
	other.strategy = strategy
	return &other
}

// judge says how an object that exists is doing.
type judge func(*unstructured.Unstructured) (*status.Result, error)

// Wait implements kube.Waiter.
func (w *waiter) Wait(objects kube.ResourceList, timeout time.Duration) error {
	if w.strategy == kube.HookOnlyStrategy {
		return nil
	}
	return w.wait(w.interrupted, objects, timeout, w.health, true)
}

// WaitWithJobs implements kube.Waiter.
func (w *waiter) WaitWithJobs(objects kube.ResourceList, timeout time.Duration) error {
	if w.strategy == kube.HookOnlyStrategy {
		return nil
	}
	return w.wait(w.interrupted, objects, timeout, w.healthWithJobs, true)
}

// WatchUntilReady implements kube.Waiter. It is for hooks: Jobs have to complete
// and Pods to succeed, all else only has to be there.
func (w *waiter) WatchUntilReady(objects kube.ResourceList, timeout time.Duration) error {
	return w.wait(w.ctx, objects, timeout, w.hook, false)
}

// WaitForDelete implements kube.Waiter.
func (w *waiter) WaitForDelete(objects kube.ResourceList, timeout time.Duration) error {
	if w.strategy == kube.HookOnlyStrategy {
		return nil
	}
	return w.wait(w.ctx, objects, timeout, nil, false)
}

func (w *waiter) health(o *unstructured.Unstructured) (*status.Result, error) {
	if evaluator := w.custom[o.GroupVersionKind().GroupKind()]; evaluator != nil {
		return evaluator.Evaluate(w.ctx, o)
	}
	if paused, _, _ := unstructured.NestedBool(o.Object, "spec", "paused"); paused && isKind(o, "apps", "Deployment") {
		return &status.Result{Status: status.CurrentStatus, Message: "paused"}, nil
	}
	return status.Compute(o)
}

func (w *waiter) healthWithJobs(o *unstructured.Unstructured) (*status.Result, error) {
	if isKind(o, "batch", "Job") && w.custom[o.GroupVersionKind().GroupKind()] == nil {
		return jobResult(o), nil
	}
	return w.health(o)
}

func (w *waiter) hook(o *unstructured.Unstructured) (*status.Result, error) {
	switch {
	case w.custom[o.GroupVersionKind().GroupKind()] != nil:
		return w.health(o)
	case isKind(o, "batch", "Job"):
		return jobResult(o), nil
	case isKind(o, "", "Pod"):
		return podResult(o), nil
	}
	return &status.Result{Status: status.CurrentStatus}, nil
}

func isKind(o *unstructured.Unstructured, group, kind string) bool {
	return o.GroupVersionKind().GroupKind() == schema.GroupKind{Group: group, Kind: kind}
}

// jobResult tells whether a Job has ended, and how.
func jobResult(o *unstructured.Unstructured) *status.Result {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		condition, ok := c.(map[string]any)
		if !ok || condition["status"] != "True" {
			continue
		}
		message, _ := condition["message"].(string)
		switch condition["type"] {
		case "Complete":
			return &status.Result{Status: status.CurrentStatus, Message: message}
		case "Failed":
			return &status.Result{Status: status.FailedStatus, Message: message}
		}
	}
	return &status.Result{Status: status.InProgressStatus, Message: "the Job has not ended"}
}

// podResult tells whether a Pod that is to end has, and how.
func podResult(o *unstructured.Unstructured) *status.Result {
	phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
	message, _, _ := unstructured.NestedString(o.Object, "status", "message")
	switch phase {
	case "Succeeded":
		return &status.Result{Status: status.CurrentStatus}
	case "Failed":
		return &status.Result{Status: status.FailedStatus, Message: message}
	}
	return &status.Result{Status: status.InProgressStatus, Message: "the Pod has not ended"}
}

// wait follows all objects until each is well. A nil judge waits for them to be
// gone. With hasty, the first that has failed for good ends it.
func (w *waiter) wait(ctx context.Context, objects kube.ResourceList, timeout time.Duration, j judge, hasty bool) error {
	if len(objects) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c := &crowd{hasty: hasty, cancel: cancel}
	w.aside(func() {
		var all sync.WaitGroup
		for _, object := range objects {
			all.Go(func() { c.done(object, w.follow(limited, object, j, c)) })
		}
		all.Wait()
	})
	return c.verdict(ctx, timeout)
}

// crowd collects how the objects of one wait are doing.
type crowd struct {
	hasty  bool
	cancel context.CancelFunc

	mu      sync.Mutex
	failed  []string
	pending map[string]string
	errs    []error
}

func nameOf(o *resource.Info) string {
	kind := o.Mapping.GroupVersionKind.Kind
	if o.Namespace == "" {
		return kind + "/" + o.Name
	}
	return kind + "/" + o.Namespace + "/" + o.Name
}

// saw notes the last thing that is known of an object that is not well yet.
func (c *crowd) saw(o *resource.Info, r *status.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending == nil {
		c.pending = map[string]string{}
	}
	c.pending[nameOf(o)] = string(r.Status)
	if r.Message != "" {
		c.pending[nameOf(o)] += ": " + r.Message
	}
}

// errFailed says that an object will not become well by itself.
var errFailed = errors.New("failed")

// done notes the end of one object.
func (c *crowd) done(o *resource.Info, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		delete(c.pending, nameOf(o))
	case errors.Is(err, errFailed):
		c.failed = append(c.failed, nameOf(o)+" status: '"+c.pending[nameOf(o)]+"'")
		if c.hasty {
			c.cancel()
		}
	case !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		c.errs = append(c.errs, fmt.Errorf("%s: %w", nameOf(o), err))
	}
}

// verdict sums up. ctx is the wait's own, without its timeout.
func (c *crowd) verdict(ctx context.Context, timeout time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.failed) > 0:
		slices.Sort(c.failed)
		return fmt.Errorf("failed early due to stalled resources: [%s]", strings.Join(c.failed, ", "))
	case ctx.Err() != nil:
		return errInterrupted
	case len(c.errs) > 0:
		return errors.Join(c.errs...)
	case len(c.pending) > 0:
		var waiting []string
		for name, state := range c.pending {
			waiting = append(waiting, name+" status: '"+state+"'")
		}
		slices.Sort(waiting)
		return fmt.Errorf("timeout waiting for: [%s] after %s", strings.Join(waiting, ", "), timeout)
	}
	return nil
}

// follow watches one object until it is well, has failed or is gone, whichever
// is waited for.
func (w *waiter) follow(ctx context.Context, o *resource.Info, j judge, c *crowd) error {
	objects := w.resource(o)
	now, err := objects.Get(ctx, o.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if j == nil {
			return nil
		}
		c.saw(o, &status.Result{Status: status.NotFoundStatus})
	case err != nil:
		return err
	default:
		if ended, err := w.look(now, o, j, c); ended || err != nil {
			return err
		}
	}
	return w.watch(ctx, objects, o, j, c)
}

func (w *waiter) resource(o *resource.Info) dynamic.ResourceInterface {
	if o.Namespace == "" {
		return w.objects.Resource(o.Mapping.Resource)
	}
	return w.objects.Resource(o.Mapping.Resource).Namespace(o.Namespace)
}

// look judges an object that exists. It has ended if it is well or has failed.
func (w *waiter) look(now *unstructured.Unstructured, o *resource.Info, j judge, c *crowd) (ended bool, err error) {
	if j == nil {
		c.saw(o, &status.Result{Status: status.TerminatingStatus})
		return false, nil
	}
	result, err := j(now)
	if err != nil {
		return false, err
	}
	switch result.Status {
	case status.CurrentStatus:
		return true, nil
	case status.FailedStatus:
		c.saw(o, result)
		return true, errFailed
	}
	c.saw(o, result)
	return false, nil
}

func (w *waiter) watch(ctx context.Context, objects dynamic.ResourceInterface, o *resource.Info, j judge, c *crowd) error {
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, o.Name).String()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return objects.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return objects.Watch(ctx, options)
		},
	}
	gone := func(store cache.Store) (bool, error) { return j == nil && len(store.List()) == 0, nil }
	_, err := watchtools.UntilWithSync(ctx, source, &unstructured.Unstructured{}, gone, func(e watch.Event) (bool, error) {
		now, ok := e.Object.(*unstructured.Unstructured)
		switch {
		case !ok:
			return false, nil
		case e.Type == watch.Deleted && j == nil:
			return true, nil
		case e.Type == watch.Deleted && removesItself(now):
			return true, nil
		case e.Type == watch.Deleted:
			c.saw(o, &status.Result{Status: status.NotFoundStatus})
			return false, nil
		}
		return w.look(now, o, j, c)
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// removesItself tells whether an object is one that goes away when it has done
// its work.
func removesItself(o *unstructured.Unstructured) bool {
	_, found, _ := unstructured.NestedInt64(o.Object, "spec", "ttlSecondsAfterFinished")
	return found && isKind(o, "batch", "Job")
}

// aside lets another waiter wait without counting as working.
type aside struct {
	kube.Waiter
	aside func(func())
}

func (a *aside) run(wait func() error) (err error) {
	a.aside(func() { err = wait() })
	return err
}

// Wait implements kube.Waiter.
func (a *aside) Wait(objects kube.ResourceList, timeout time.Duration) error {
	return a.run(func() error { return a.Waiter.Wait(objects, timeout) })
}

// WaitWithJobs implements kube.Waiter.
func (a *aside) WaitWithJobs(objects kube.ResourceList, timeout time.Duration) error {
	return a.run(func() error { return a.Waiter.WaitWithJobs(objects, timeout) })
}

// WatchUntilReady implements kube.Waiter.
func (a *aside) WatchUntilReady(objects kube.ResourceList, timeout time.Duration) error {
	return a.run(func() error { return a.Waiter.WatchUntilReady(objects, timeout) })
}

// WaitForDelete implements kube.Waiter.
func (a *aside) WaitForDelete(objects kube.ResourceList, timeout time.Duration) error {
	return a.run(func() error { return a.Waiter.WaitForDelete(objects, timeout) })
}
