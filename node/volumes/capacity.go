package volumes

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	informercorev1 "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	listercorev1 "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

// capacity makes each volume's limit on disk what its objects say, and expands
// a volume whose claim asks for more: first the limit, then the
// PersistentVolume, then the claim's status, so that nobody is promised space
// that is not there.
type capacity struct {
	node     string
	store    *store
	client   kubernetes.Interface
	claims   listercorev1.PersistentVolumeClaimLister
	volumes  listercorev1.PersistentVolumeLister
	recorder record.EventRecorder
	log      *slog.Logger
	queue    workqueue.TypedRateLimitingInterface[string]
}

func newCapacity(node string, s *store, client kubernetes.Interface, claims informercorev1.PersistentVolumeClaimInformer, volumes informercorev1.PersistentVolumeInformer, recorder record.EventRecorder, log *slog.Logger) (*capacity, error) {
	c := &capacity{
		node: node, store: s, client: client, claims: claims.Lister(), volumes: volumes.Lister(), recorder: recorder, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
	_, err := volumes.Informer().AddEventHandlerWithResyncPeriod(onChange(func(pv *corev1.PersistentVolume) { c.queue.Add(pv.Name) }), resyncEvery)
	if err != nil {
		return nil, fmt.Errorf("watch volumes: %w", err)
	}
	_, err = claims.Informer().AddEventHandler(onChange(func(claim *corev1.PersistentVolumeClaim) {
		if claim.Spec.VolumeName != "" {
			c.queue.Add(claim.Spec.VolumeName)
		}
	}))
	if err != nil {
		return nil, fmt.Errorf("watch claims: %w", err)
	}
	return c, nil
}

// onChange calls f for each object that is new or changed.
func onChange[T any](f func(T)) cache.ResourceEventHandler {
	call := func(obj any) {
		if t, ok := obj.(T); ok {
			f(t)
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: call, UpdateFunc: func(_, obj any) { call(obj) }}
}

func (c *capacity) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, c.queue.ShutDown)
	defer stop()
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		for c.next(ctx) {
		}
	}, 0)
}

func (c *capacity) next(ctx context.Context) bool {
	name, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(name)
	err := c.sync(ctx, name)
	switch {
	case err == nil:
		c.queue.Forget(name)
	case ctx.Err() == nil:
		c.log.Warn("capacity of a volume could not be set, will try again", "volume", name, "err", err)
		c.queue.AddRateLimited(name)
	}
	return true
}

func (c *capacity) sync(ctx context.Context, name string) error {
	pv, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, ours := directoryOf(pv, c.node)
	if !ours || pv.DeletionTimestamp != nil {
		return nil
	}
	claim := c.claimOf(pv)
	size := wanted(pv, claim)
	if err := c.fits(size); err != nil {
		c.event(claim, corev1.EventTypeWarning, "VolumeResizeFailed", err.Error())
		return nil // the claim has to change
	}
	promise, err := c.store.limit(dir, size.Value())
	if err != nil {
		c.event(claim, corev1.EventTypeWarning, "VolumeResizeFailed", err.Error())
		return err
	}
	if err := c.patchVolume(ctx, pv, size, promise); err != nil {
		return err
	}
	return c.patchClaim(ctx, claim, size)
}

// claimOf is the claim a volume is bound to, nil if there is none.
func (c *capacity) claimOf(pv *corev1.PersistentVolume) *corev1.PersistentVolumeClaim {
	ref := pv.Spec.ClaimRef
	if ref == nil || pv.Status.Phase != corev1.VolumeBound {
		return nil
	}
	claim, err := c.claims.PersistentVolumeClaims(ref.Namespace).Get(ref.Name)
	if err != nil || claim.UID != ref.UID || claim.Spec.VolumeName != pv.Name {
		return nil
	}
	return claim
}

// wanted is the larger of what the volume has and what the claim asks for:
// Kubernetes never shrinks a volume.
func wanted(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) resource.Quantity {
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	if claim == nil {
		return size
	}
	if request := claim.Spec.Resources.Requests[corev1.ResourceStorage]; request.Cmp(size) > 0 {
		return request
	}
	return size
}

func (c *capacity) fits(size resource.Quantity) error {
	total, err := c.store.totalBytes()
	if err != nil {
		return err
	}
	if size.Value() > total {
		return fmt.Errorf("%s is more than the whole disk of node %s, which has %d MiB", size.String(), c.node, total>>20)
	}
	return nil
}

func (c *capacity) patchVolume(ctx context.Context, pv *corev1.PersistentVolume, size resource.Quantity, promise string) error {
	have := pv.Spec.Capacity[corev1.ResourceStorage]
	if have.Cmp(size) == 0 && pv.Annotations[CapacityAnnotation] == promise {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]string{CapacityAnnotation: promise}},
		"spec":     map[string]any{"capacity": corev1.ResourceList{corev1.ResourceStorage: size}},
	})
	if err != nil {
		return err
	}
	if _, err := c.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("update volume: %w", err)
	}
	return nil
}

// patchClaim reports the new size on the claim and ends its resize conditions.
func (c *capacity) patchClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim, size resource.Quantity) error {
	if claim == nil || claim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	have := claim.Status.Capacity[corev1.ResourceStorage]
	if have.Cmp(size) >= 0 {
		return nil
	}
	update := claim.DeepCopy()
	if update.Status.Capacity == nil {
		update.Status.Capacity = corev1.ResourceList{}
	}
	update.Status.Capacity[corev1.ResourceStorage] = size
	update.Status.Conditions = slices.DeleteFunc(update.Status.Conditions, func(cond corev1.PersistentVolumeClaimCondition) bool {
		return cond.Type == corev1.PersistentVolumeClaimResizing || cond.Type == corev1.PersistentVolumeClaimFileSystemResizePending
	})
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, update, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update status of claim: %w", err)
	}
	c.event(claim, corev1.EventTypeNormal, "VolumeResizeSuccessful", "volume expanded to "+size.String())
	c.log.Info("volume expanded", "claim", claim.Namespace+"/"+claim.Name, "size", size.String())
	return nil
}

func (c *capacity) event(claim *corev1.PersistentVolumeClaim, kind, reason, message string) {
	if claim != nil {
		c.recorder.Event(claim, kind, reason, message)
	}
}

// volumeExists returns a function that tells whether a directory belongs to a
// PersistentVolume.
func volumeExists(volumes listercorev1.PersistentVolumeLister) func(directory string) bool {
	return func(directory string) bool {
		for i, r := range directory {
			if r == '_' {
				_, err := volumes.Get(directory[:i])
				return err == nil
			}
		}
		return true // not one of ours: leave it alone
	}
}
