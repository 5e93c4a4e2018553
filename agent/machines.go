package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/kube"
	"github.com/bothy-os/bothy/node/machine"
)

// MachineStatus is a worker as its control plane sees it.
type MachineStatus struct {
	Name     string `json:"name"`
	Identity string `json:"identity"`
	Address  string `json:"address,omitempty"`
	// Joined says that it has a Node object, Ready that this says so; Reason is why not.
	Joined bool   `json:"joined"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// machines keeps the Node objects of workers: their labels and taints are those of their Machines, and a Node goes with its
// Machine. The kubelet may do neither.
type machines struct {
	log              *slog.Logger
	self, kubeconfig string

	mu      sync.Mutex
	cluster *v1alpha1.Cluster
	workers map[string]*v1alpha1.Machine
	nodes   map[string]*corev1.Node
	// again is closed when the Machines have changed.
	again chan struct{}
}

func newMachines(log *slog.Logger, self, kubeconfig string) *machines {
	return &machines{log: log, self: self, kubeconfig: kubeconfig, again: make(chan struct{}), nodes: map[string]*corev1.Node{}}
}

// follow takes over what a commit says.
func (m *machines) follow(cluster *v1alpha1.Cluster, workers []*v1alpha1.Machine) {
	next := map[string]*v1alpha1.Machine{}
	for _, w := range workers {
		next[w.Metadata.Name] = w
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cluster, m.workers = cluster, next
	close(m.again)
	m.again = make(chan struct{})
}

// run watches Nodes until ctx ends.
func (m *machines) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := m.watch(ctx); err != nil && ctx.Err() == nil {
			m.log.Debug("watch the Nodes of workers", "err", err)
		}
		wait(ctx, retryWatch)
	}
}

// watch looks at all Nodes, and then at each that changes; at all again when the Machines have changed.
func (m *machines) watch(ctx context.Context) error {
	config, err := kube.Config(m.kubeconfig, "machines")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	m.mu.Lock()
	again := m.again
	clear(m.nodes)
	m.mu.Unlock()
	w, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				return errors.New("the watch ended")
			}
			node, ok := e.Object.(*corev1.Node)
			if !ok {
				return fmt.Errorf("the watch ended: %v", e.Object)
			}
			if err := m.keep(ctx, client, node, e.Type); err != nil {
				return err
			}
		case <-again:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// keep brings one Node into line.
func (m *machines) keep(ctx context.Context, client kubernetes.Interface, node *corev1.Node, event watch.EventType) error {
	m.mu.Lock()
	cluster, worker := m.cluster, m.workers[node.Name]
	if delete(m.nodes, node.Name); event != watch.Deleted {
		m.nodes[node.Name] = node
	}
	m.mu.Unlock()
	switch {
	case event == watch.Deleted || node.Name == m.self || cluster == nil:
		return nil
	case worker != nil:
		return machine.Keep(ctx, client, machine.Config{NodeName: node.Name, Cluster: cluster, Machine: worker, Log: m.log}, node)
	case node.Annotations[machine.Annotation] == "":
		return nil // not one of ours
	}
	m.log.Info("machine left the repository, removing its Node", "machine", node.Name)
	err := client.CoreV1().Nodes().Delete(ctx, node.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &node.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove Node %s, whose machine left the repository: %w", node.Name, err)
	}
	return nil
}

// status lists the workers by name.
func (m *machines) status() []MachineStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []MachineStatus
	for name, w := range m.workers {
		st := MachineStatus{Name: name, Identity: w.Spec.Identity, Reason: "has not joined yet"}
		if node := m.nodes[name]; node != nil {
			st.Joined, st.Address = true, internalIP(node)
			st.Ready, st.Reason = readiness(node, watch.Modified)
			if st.Ready {
				st.Reason = ""
			}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b MachineStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}
