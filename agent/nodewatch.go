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
	"github.com/bothy-os/bothy/os/boot"
)

// nodeWatch follows this node's Ready condition, its pods, and the Services
// that answer on its ports.
type nodeWatch struct {
	log        *slog.Logger
	name       string
	kubeconfig string
	// started is when the node started: what the API server says about pods
	// that ran before is not true any more.
	started time.Time

	mu      sync.Mutex
	ready   bool
	reason  string
	address string
	ports   map[string]int32     // Service namespace/name:port → node port
	pods    map[string]podHealth // namespace/name
	// podsKnown says that pods was complete once.
	podsKnown bool
	changed   chan struct{}
	// registered is closed when this node has a Node object with its pod ranges.
	registered     chan struct{}
	registeredOnce sync.Once
}

func newNodeWatch(log *slog.Logger, env *boot.Environment, kubeconfig string) *nodeWatch {
	return &nodeWatch{
		log: log, name: env.Name, started: time.Unix(0, env.StartedAt), kubeconfig: kubeconfig, reason: "not registered yet",
		ports: map[string]int32{}, pods: map[string]podHealth{}, changed: make(chan struct{}), registered: make(chan struct{}),
	}
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
	var all sync.WaitGroup
	all.Go(func() { n.watchNode(ctx, client) })
	all.Go(func() { n.watchServices(ctx, client) })
	all.Go(func() { n.watchPods(ctx, client) })
	all.Wait()
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
		if len(node.Spec.PodCIDRs) > 0 {
			n.registeredOnce.Do(func() { close(n.registered) })
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

// podHealth is what counts of a pod.
type podHealth struct{ ready, stale bool }

func (n *nodeWatch) watchPods(ctx context.Context, client kubernetes.Interface) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.name).String()}
	for ctx.Err() == nil {
		n.eachPod(ctx, client.CoreV1().Pods(""), options)
		wait(ctx, retryWatch)
	}
}

// eachPod lists before it watches, because only a complete list says that no
// pod is stale.
func (n *nodeWatch) eachPod(ctx context.Context, pods typedcore.PodInterface, options metav1.ListOptions) {
	list, err := pods.List(ctx, options)
	if err != nil {
		return
	}
	n.set(func() { clear(n.pods) })
	for i := range list.Items {
		n.notePod(&list.Items[i], watch.Added)
	}
	n.set(func() { n.podsKnown = true })
	options.ResourceVersion = list.ResourceVersion
	w, err := pods.Watch(ctx, options)
	if err != nil {
		return
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if pod, ok := e.Object.(*corev1.Pod); ok {
			n.notePod(pod, e.Type)
		}
	}
}

func (n *nodeWatch) notePod(pod *corev1.Pod, event watch.EventType) {
	key := pod.Namespace + "/" + pod.Name
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	health := podHealth{stale: n.stale(pod, ready)}
	health.ready = ready && !health.stale
	n.set(func() {
		if event == watch.Deleted || ended {
			delete(n.pods, key)
			return
		}
		n.pods[key] = health
	})
}

// stale reports whether a pod from before the node's start has yet to come
// back: none of its containers has ended since, and they do not all run and
// answer. Its status, and that of its Deployment, may still be the old one.
func (n *nodeWatch) stale(pod *corev1.Pod, ready bool) bool {
	since := n.started.Truncate(time.Second) // the API server keeps whole seconds
	if !pod.CreationTimestamp.Time.Before(since) {
		return false
	}
	for _, c := range pod.Status.ContainerStatuses {
		for _, s := range []corev1.ContainerState{c.State, c.LastTerminationState} {
			if t := s.Terminated; t != nil && !t.StartedAt.Time.Before(since) {
				return false // it came back and failed by itself
			}
		}
		if r := c.State.Running; r == nil || r.StartedAt.Time.Before(since) {
			return true
		}
	}
	return !ready
}

// podCounts sums up the pods of this node that have not ended.
func (n *nodeWatch) podCounts() PodCounts {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := PodCounts{Total: len(n.pods), Known: n.podsKnown}
	for _, p := range n.pods {
		if p.ready {
			c.Ready++
		}
		if p.stale {
			c.Stale++
		}
	}
	return c
}

// readyPods are the pods of this node that are ready, by namespace and name.
func (n *nodeWatch) readyPods() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for key, p := range n.pods {
		if p.ready {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// notReady are those of the pods that are there and not ready.
func (n *nodeWatch) notReady(pods []string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, key := range pods {
		if p, there := n.pods[key]; there && !p.ready {
			out = append(out, key)
		}
	}
	return out
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
