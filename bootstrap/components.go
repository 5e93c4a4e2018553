package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/bothy-os/bothy/bootstrap/encryption"
	"github.com/bothy-os/bothy/bootstrap/etcd"
	"github.com/bothy-os/bothy/bootstrap/objects"
	"github.com/bothy-os/bothy/bootstrap/policy"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/internal/supervise"
)

// Names of the components, for After lists elsewhere in the process.
const (
	ComponentPKI               = "pki"
	ComponentEtcd              = "etcd"
	ComponentAPIServer         = "kube-apiserver"
	ComponentControllerManager = "kube-controller-manager"
	ComponentScheduler         = "kube-scheduler"
	ComponentSystemObjects     = "system-objects"
	ComponentCertificates      = "certificates"
	ComponentEncryptionKeys    = "encryption-keys"
)

const (
	// apiGrace is short because the server would wait for clients to close
	// their watches, and those that live outside this process never do.
	apiGrace = 500 * time.Millisecond
	// etcdGrace is short for the same reason. Every write that was acknowledged
	// is in the log on disk.
	etcdGrace = time.Second
	// clientGrace is short because all state of these is in the API server.
	clientGrace = time.Second

	certificatesEvery = time.Minute
	rotationEvery     = time.Hour
	// applyPatience is how long system objects are retried quietly: at a first
	// start some of what they refer to comes a moment later.
	applyPatience = 10 * time.Second
)

// Components returns the control plane for a supervisor.
func (cp *ControlPlane) Components() []supervise.Component {
	afterAPI := []string{ComponentAPIServer}
	return []supervise.Component{
		{Name: ComponentPKI, Run: cp.runPKI, Restart: supervise.RunOnce},
		{Name: ComponentCertificates, After: []string{ComponentPKI}, Run: cp.runCertificates},
		{Name: ComponentEtcd, After: []string{ComponentPKI}, Run: cp.runEtcd, Restart: supervise.RestartNever, Grace: etcdGrace},
		{Name: ComponentAPIServer, After: []string{ComponentEtcd}, Run: cp.runAPIServer, Restart: supervise.RestartNever, Grace: apiGrace},
		{Name: ComponentControllerManager, After: afterAPI, Run: cp.runControllerManager, Restart: supervise.RestartNever, Grace: clientGrace},
		{Name: ComponentScheduler, After: afterAPI, Run: cp.runScheduler, Restart: supervise.RestartNever, Grace: clientGrace},
		{Name: ComponentSystemObjects, After: afterAPI, Run: cp.runSystemObjects, Restart: supervise.RunOnce},
		{Name: ComponentEncryptionKeys, After: afterAPI, Run: cp.runEncryptionKeys},
	}
}

// runPKI makes everything that the others read from disk.
func (cp *ControlPlane) runPKI(context.Context, func()) error {
	if err := cp.pki.Ensure(); err != nil {
		return err
	}
	for _, dir := range []string{cp.paths.FlexVolumes(), cp.paths.Audit()} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create %s: %w", dir, err)
		}
	}
	authentication, err := policy.Authentication()
	if err != nil {
		return fmt.Errorf("encode authentication configuration: %w", err)
	}
	admission, err := policy.Admission(cp.cfg.Cluster.Spec.Security.PodSecurity)
	if err != nil {
		return fmt.Errorf("encode admission configuration: %w", err)
	}
	for file, data := range map[string][]byte{
		cp.paths.AuthenticationConfig(): authentication,
		cp.paths.AdmissionConfig():      admission,
		cp.paths.AuditPolicy():          policy.Audit(),
	} {
		if _, err := durable.WriteFileIfChanged(file, data, 0o600); err != nil {
			return err
		}
	}
	// Without etcd data no Secret can have been stored, so a key may be made.
	_, err = os.Stat(filepath.Join(cp.paths.Etcd(), "member"))
	fresh := errors.Is(err, fs.ErrNotExist)
	rotator, err := encryption.Open(cp.paths.EncryptionKeys(), cp.paths.EncryptionConfig(), fresh, time.Now(), cp.cfg.Log)
	if err != nil {
		return err
	}
	cp.rotator.set(rotator)
	return nil
}

// runCertificates renews what is due. Servers and clients pick up new files by
// themselves. Asking every minute is what notices a clock that jumps.
func (cp *ControlPlane) runCertificates(ctx context.Context, ready func()) error {
	ready()
	return every(ctx, certificatesEvery, func() error {
		if !cp.pki.Due() {
			return nil
		}
		return cp.pki.Ensure()
	})
}

func (cp *ControlPlane) runEtcd(ctx context.Context, ready func()) error {
	server, err := etcd.Start(ctx, cp.etcdCfg)
	if err != nil {
		return err
	}
	defer server.Close()
	cp.etcd.set(server)
	ready()
	return server.Wait(ctx)
}

func (cp *ControlPlane) runSystemObjects(ctx context.Context, _ func()) error {
	api, err := cp.api.wait(ctx)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(api.loopback)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	ca, err := os.ReadFile(cp.paths.ClusterCA())
	if err != nil {
		return fmt.Errorf("read cluster CA: %w", err)
	}
	objs := make([]*unstructured.Unstructured, 0, len(cp.objects))
	for _, o := range cp.objects {
		objs = append(objs, o.DeepCopy())
	}
	if err := objects.FillCABundle(objs, ca); err != nil {
		return err
	}
	applier := &objects.Applier{Client: client, Log: cp.cfg.Log}
	return retryFor(ctx, applyPatience, func(ctx context.Context) error { return applier.Apply(ctx, objs) })
}

// runEncryptionKeys finishes a rotation that was cut short, and starts one when
// the key is old enough.
func (cp *ControlPlane) runEncryptionKeys(ctx context.Context, ready func()) error {
	store, err := cp.secretStore(ctx)
	if err != nil {
		return err
	}
	rotator, err := cp.rotator.wait(ctx)
	if err != nil {
		return err
	}
	ready()
	if err := rotator.Resume(ctx, store); err != nil {
		return err
	}
	return every(ctx, rotationEvery, func() error {
		_, created := rotator.State()
		if !encryption.Old(created, time.Now(), cp.cfg.Cluster.Spec.Security.Encryption.RotateEvery.Duration) {
			return nil
		}
		return rotator.Rotate(ctx, store, time.Now())
	})
}

// every calls do at once and then at intervals, until ctx ends or do fails.
func every(ctx context.Context, interval time.Duration, do func() error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := do(); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
