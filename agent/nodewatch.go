package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/bothy-os/bothy/internal/kube"
	"github.com/bothy-os/bothy/internal/supervise"
)

// nodeWatch follows this node's Ready condition and the Services that answer
// on its ports.
type nodeWatch struct {
	log        *slog.Logger
	name       string
	kubeconfig string

	mu      sync.Mutex
	ready   bool
	reason  string
	address string
	ports   map[string]int32 // Service namespace/name:port → node port
	changed chan struct{}
}

func newNodeWatch(log *slog.Logger, name, kubeconfig string) *nodeWatch {
	return &nodeWatch{log: log, name: name, kubeconfig: kubeconfig, reason: "not registered yet", ports: map[string]int32{}, changed: make(chan struct{})}
}

func (n *nodeWatch) component(after string) supervise.Component {
	return supervise.Component{Name: "node-status", After: []string{after}, Run: n.run}
}

func (n *nodeWatch) run(ctx context.Context, ready func()) error {
	config, err := kube.Config(n.kubeconfig, "node-status")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ready()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { n.watchNode(ctx, client) })
	both.Go(func() { n.watchServices(ctx, client) })
	both.Wait()
	return nil
}

// retryWatch is the pause before a watch that ended is opened again.
const retryWatch = 250 * time.Millisecond

func (n *nodeWatch) watchNode(ctx context.Context, client kubernetes.Interface) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", n.name).String()}
	for ctx.Err() == nil {
		err := n.eachNode(ctx, client.CoreV1().Nodes(), options)
		if err != nil && ctx.Err() == nil {
			n.set(func() { n.ready, n.reason = false, fmt.Sprintf("the API server cannot be asked: %v", err) })
		}
		wait(ctx, retryWatch)
	}
}

func (n *nodeWatch) eachNode(ctx context.Context, nodes typedcore.NodeInterface, options metav1.ListOptions) error {
	w, err := nodes.Watch(ctx, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		node, ok := e.Object.(*corev1.Node)
		if !ok {
			return fmt.Errorf("the watch ended: %v", e.Object)
		}
		ready, reason := readiness(node, e.Type)
		n.set(func() { n.ready, n.reason, n.address = ready, reason, internalIP(node) })
	}
	return nil
}

func readiness(node *corev1.Node, event watch.EventType) (bool, string) {
	if event == watch.Deleted {
		return false, "the Node object was deleted"
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue, c.Message
		}
	}
	return false, "the kubelet has not reported yet"
}

func internalIP(node *corev1.Node) string {
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}

func (n *nodeWatch) watchServices(ctx context.Context, client kubernetes.Interface) {
	for ctx.Err() == nil {
		if w, err := client.CoreV1().Services("").Watch(ctx, metav1.ListOptions{}); err == nil {
			n.set(func() { clear(n.ports) })
			for e := range w.ResultChan() {
				if svc, ok := e.Object.(*corev1.Service); ok {
					n.noteService(svc, e.Type)
				}
			}
			w.Stop()
		}
		wait(ctx, retryWatch)
	}
}

func (n *nodeWatch) noteService(svc *corev1.Service, event watch.EventType) {
	fresh := map[string]int32{}
	if event != watch.Deleted {
		for _, p := range svc.Spec.Ports {
			if p.NodePort != 0 && p.Protocol == corev1.ProtocolTCP {
				fresh[fmt.Sprintf("%s/%s:%d", svc.Namespace, svc.Name, p.Port)] = p.NodePort
			}
		}
	}
	prefix := fmt.Sprintf("%s/%s:", svc.Namespace, svc.Name)
	n.set(func() {
		for k := range n.ports {
			if len(k) > len(prefix) && k[:len(prefix)] == prefix {
				delete(n.ports, k)
			}
		}
		for k, v := range fresh {
			n.ports[k] = v
		}
	})
}

func (n *nodeWatch) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *nodeWatch) get() (ready bool, reason string, urls []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, port := range n.ports {
		urls = append(urls, "http://"+net.JoinHostPort(n.address, strconv.Itoa(int(port))))
	}
	slices.Sort(urls)
	reason = n.reason
	if n.ready {
		reason = ""
	}
	return n.ready, reason, urls
}

func (n *nodeWatch) changedChan() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}
