package machine

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/node/internal/patient"
)

const (
	// ComponentName is the name of the component.
	ComponentName = "machine"
	// User is the name it has at the API server.
	User = "bothy:machine"
)

// pollInterval is how often it is looked whether the kubelet has registered
// the node, and how soon a write that met another is tried again.
const pollInterval = 200 * time.Millisecond

//go:embed objects.yaml
var objects []byte

// SystemObjects is what user User may do, as a manifest.
func SystemObjects() []byte { return objects }

// Config says whose Node is to be kept, and how.
type Config struct {
	NodeName   string
	Kubeconfig string
	Cluster    *v1alpha1.Cluster
	Machine    *v1alpha1.Machine
	After      []string
	Log        *slog.Logger
}

// Component brings the Node into line once, as soon as there is one.
func Component(cfg Config) supervise.Component {
	return supervise.Component{
		Name: ComponentName, After: cfg.After, Restart: supervise.RunOnce,
		Run: func(ctx context.Context, _ func()) error {
			rest, err := patient.RESTConfig(cfg.Kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(rest)
			if err != nil {
				return fmt.Errorf("make a client: %w", err)
			}
			return keep(ctx, client, cfg)
		},
	}
}

// keep returns once the Node is as it should be.
func keep(ctx context.Context, client kubernetes.Interface, cfg Config) error {
	d := want(cfg.Cluster, cfg.Machine)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		done, err := keepOnce(ctx, client, cfg, d)
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keepOnce reports false when it has to be tried again: there is no Node yet,
// or somebody else wrote at the same time.
func keepOnce(ctx context.Context, client kubernetes.Interface, cfg Config, d desired) (bool, error) {
	node, err := client.CoreV1().Nodes().Get(ctx, cfg.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read Node %s: %w", cfg.NodeName, err)
	}
	return write(ctx, client, cfg, node, d)
}

// Keep brings a Node into line that was just read. It is not an error if somebody else wrote at the same
// time: the caller watches, and calls again.
func Keep(ctx context.Context, client kubernetes.Interface, cfg Config, node *corev1.Node) error {
	_, err := write(ctx, client, cfg, node.DeepCopy(), want(cfg.Cluster, cfg.Machine))
	return err
}

// write reports false if somebody else wrote at the same time.
func write(ctx context.Context, client kubernetes.Interface, cfg Config, node *corev1.Node, d desired) (bool, error) {
	changed, err := merge(node, d)
	if err != nil || !changed {
		return !changed, err
	}
	_, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{FieldManager: "bothy-machine"})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("label and taint Node %s: %w", cfg.NodeName, err)
	}
	cfg.Log.Info("node labelled and tainted as its Machine says", "labels", len(d.labels), "taints", len(d.taints))
	return true, nil
}
