package volumes

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/node/internal/patient"
	"github.com/bothy-os/bothy/node/internal/quietlog"
)

const (
	// ComponentName is the name of the volumes component.
	ComponentName = "volumes"
	// User is the name this component has at the API server.
	User = "bothy:volumes"
	// Provisioner is the provisioner of the StorageClass.
	Provisioner = "bothy.dev/local"
)

// Annotations on PersistentVolumes.
const (
	// NodeAnnotation names the node whose disk holds the volume.
	NodeAnnotation = "bothy.dev/node"
	// CapacityAnnotation says whether the volume's size is enforced.
	CapacityAnnotation = "bothy.dev/capacity"
)

// Config says where volumes lie and how they are offered.
type Config struct {
	// NodeName is this node.
	NodeName string
	// Dir holds one directory for each volume.
	Dir string
	// Kubeconfig is the identity of user User.
	Kubeconfig string
	// Local are the settings from cluster.yaml.
	Local v1alpha1.LocalStorageSpec
	// Worker leaves the StorageClass to the control plane.
	Worker bool
	// After names the components that must be ready before.
	After []string
	// Log receives one line per volume made or removed.
	Log *slog.Logger
}

// Volumes is the provisioner of one node.
type Volumes struct {
	cfg   Config
	store *store

	mu     sync.Mutex
	status Status
}

// Status describes the volumes of this node.
type Status struct {
	Dir string `json:"dir"`
	// Enforced is true when capacities are enforced by project quota.
	Enforced bool `json:"enforced"`
	// Reason says why they are not.
	Reason string `json:"reason,omitempty"`
	// Volumes counts the directories.
	Volumes int `json:"volumes"`
}

// New returns the provisioner. Nothing happens until its component runs.
func New(cfg Config) *Volumes {
	return &Volumes{cfg: cfg, store: newStore(cfg.Dir, cfg.Log)}
}

// Components returns the volumes component.
func (v *Volumes) Components() []supervise.Component {
	return []supervise.Component{{Name: ComponentName, After: v.cfg.After, Run: v.run}}
}

// Status returns what is known about the volumes.
func (v *Volumes) Status() Status {
	v.mu.Lock()
	st := v.status
	v.mu.Unlock()
	st.Dir = v.cfg.Dir
	st.Volumes = v.store.count()
	return st
}

func (v *Volumes) run(ctx context.Context, ready func()) error {
	ctx = quietlog.Context(ctx, v.cfg.Log, ComponentName)
	restConfig, err := patient.RESTConfig(v.cfg.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig of %s: %w", User, err)
	}
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return fmt.Errorf("make client of %s: %w", User, err)
	}
	return v.runWith(ctx, client, ready)
}

// runWith is run with a client that tests can replace.
func (v *Volumes) runWith(ctx context.Context, client kubernetes.Interface, ready func()) error {
	if err := v.store.open(); err != nil {
		return err
	}
	v.noteQuota()
	if !v.cfg.Worker {
		if err := ensureClass(ctx, client, v.cfg.Local); err != nil {
			return err
		}
	}

	factory := informers.NewSharedInformerFactoryWithOptions(client, controller.DefaultResyncPeriod, informers.WithTransform(dropManagedFields))
	claims := factory.Core().V1().PersistentVolumeClaims()
	volumes := factory.Core().V1().PersistentVolumes()
	classes := factory.Storage().V1().StorageClasses()

	events := record.NewBroadcaster(record.WithContext(ctx))
	defer events.Shutdown()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	recorder := events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: Provisioner, Host: v.cfg.NodeName})

	provisioning := controller.NewProvisionController(ctx, client, Provisioner, &provisioner{node: v.cfg.NodeName, store: v.store, log: v.cfg.Log},
		controller.ClaimsInformer(claims.Informer()),
		controller.VolumesInformer(volumes.Informer()),
		controller.ClassesInformer(classes.Informer()),
		controller.LeaderElection(false), // each node has its own volumes
		controller.AddFinalizer(true),
		controller.MetricsPort(0),
		controller.Threadiness(2),
		controller.FailedProvisionThreshold(0), // a full disk may be emptied: never give up
		controller.FailedDeleteThreshold(0),
	)
	capacity, err := newCapacity(v.cfg.NodeName, v.store, client, claims, volumes, recorder, v.cfg.Log)
	if err != nil {
		return err
	}

	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), claims.Informer().HasSynced, volumes.Informer().HasSynced, classes.Informer().HasSynced) {
		return ctx.Err()
	}
	if err := v.store.removeOrphans(volumeExists(volumes.Lister())); err != nil {
		v.cfg.Log.Warn("volumes without a PersistentVolume could not be looked through", "err", err)
	}
	ready()

	var wg sync.WaitGroup
	wg.Go(func() { provisioning.Run(ctx) })
	wg.Go(func() { capacity.run(ctx) })
	wg.Go(func() { v.store.sweep(ctx) })
	wg.Wait()
	factory.Shutdown()
	return nil
}

// noteQuota finds out once whether capacities can be enforced, and tells the
// operator if not.
func (v *Volumes) noteQuota() {
	err := v.store.quota.check()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.status.Enforced, v.status.Reason = err == nil, ""
	if err != nil {
		v.status.Reason = err.Error()
		v.cfg.Log.Info("capacities of local volumes are not enforced", "dir", v.cfg.Dir, "reason", err)
	}
}

// directoryOf is the directory of a volume that this package made on a node,
// or false if the volume is not one.
func directoryOf(pv *corev1.PersistentVolume, node string) (string, bool) {
	if pv.Spec.Local == nil || pv.Annotations[NodeAnnotation] != node {
		return "", false
	}
	return filepath.Base(pv.Spec.Local.Path), true
}

// dropManagedFields keeps the caches small: half of an object is the record of
// who set which field.
func dropManagedFields(obj any) (any, error) {
	if o, err := meta.Accessor(obj); err == nil {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// resyncEvery is how often all limits are compared with the disk.
const resyncEvery = controller.DefaultResyncPeriod
