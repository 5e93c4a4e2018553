package nodes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// Config is what the controller must know.
type Config struct {
	// Self is this node, with the pod ranges it uses.
	Self Node
	// Uplink is the interface to the other nodes.
	Uplink string
	// Encapsulate has packets wrapped for nodes on the same link as well.
	Encapsulate bool
	// Attach puts the dataplane's programs on the tunnel's device.
	Attach func(dev netlink.Link) error
	// Tunnelled is told how many bytes of each packet tunnels take, 0 while there are none, and which pods are behind
	// them: by their ranges, the addresses of this node that they answer through the tunnel.
	Tunnelled func(overhead int, pods map[netip.Prefix]netip.Addr) error
	Log       *slog.Logger
}

// Status is what an operator sees of other nodes.
type Status struct {
	// Routes are in words.
	Routes   []string `json:"routes,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

// Controller keeps the routes true to the Node objects.
type Controller struct {
	cfg  Config
	wake chan struct{}

	mu     sync.Mutex
	status Status
}

// NewController only stores its arguments.
func NewController(cfg Config) *Controller {
	return &Controller{cfg: cfg, wake: make(chan struct{}, 1)}
}

// Status returns a copy.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{Routes: slices.Clone(c.status.Routes), Problems: slices.Clone(c.status.Problems)}
}

// retry is how long a failed change waits for another try.
const retry = 5 * time.Second

// Run works until ctx ends. It calls ready when the routes are true to the API for the first time.
func (c *Controller) Run(ctx context.Context, client kubernetes.Interface, ready func()) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip))
	lister := factory.Core().V1().Nodes().Lister()
	informer := factory.Core().V1().Nodes().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.Wake() },
		UpdateFunc: c.updated,
		DeleteFunc: func(any) { c.Wake() },
	}); err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	err := c.sync(lister)
	ready()
	for {
		var again <-chan time.Time
		if err != nil {
			c.cfg.Log.Warn("routes to other nodes are not all in force, will try again", "err", err)
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-again:
		}
		err = c.sync(lister)
	}
}

// Wake has the routes looked at again, because something else than a Node has changed.
func (c *Controller) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// updated spares the work for the many updates that change nothing here.
func (c *Controller) updated(before, after any) {
	a, _ := before.(*corev1.Node)
	b, _ := after.(*corev1.Node)
	if a != nil && b != nil && same(FromObject(a), FromObject(b)) {
		return
	}
	c.Wake()
}

func same(a, b Node) bool {
	return a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Pods, b.Pods)
}

func (c *Controller) sync(lister corelisters.NodeLister) error {
	objs, err := lister.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	all := make([]Node, 0, len(objs))
	for _, o := range objs {
		all = append(all, FromObject(o))
	}
	uplink, err := netlink.LinkByName(c.cfg.Uplink)
	if err != nil {
		return fmt.Errorf("find uplink %q: %w", c.cfg.Uplink, err)
	}
	var local []netip.Prefix
	if !c.cfg.Encapsulate {
		if local, err = onLink(uplink); err != nil {
			return err
		}
	}
	routes, problems := Plan(c.cfg.Self, local, all)
	err = c.install(routes, all, uplink)
	c.note(routes, append(problems, err))
	return err
}

func (c *Controller) install(routes []Route, all []Node, uplink netlink.Link) error {
	overhead, behind := 0, map[netip.Prefix]netip.Addr{}
	for _, r := range routes {
		if r.Tunnel.IsValid() {
			overhead, behind[r.Pods] = max(overhead, Overhead(r.Tunnel)), c.cfg.Self.within(r.Pods)
		}
	}
	if overhead == 0 {
		err := apply(routes, c.cfg.Self, uplink, nil, nil)
		return errors.Join(err, c.cfg.Tunnelled(0, nil), removeTunnel())
	}
	tunnel, err := ensureTunnel(c.cfg.Self, uplink.Attrs().MTU-overhead)
	if err != nil {
		return err
	}
	if err := c.cfg.Attach(tunnel); err != nil {
		return err
	}
	if err := c.cfg.Tunnelled(overhead, behind); err != nil { // before packets take the new way
		return err
	}
	return apply(routes, c.cfg.Self, uplink, tunnel, macs(all))
}

// macs are the hardware addresses of the other nodes' tunnels, by all their addresses.
func macs(all []Node) map[netip.Addr]net.HardwareAddr {
	out := map[netip.Addr]net.HardwareAddr{}
	for _, n := range all {
		for _, a := range n.Addrs {
			out[a] = tunnelMAC(n.Addrs[0])
		}
	}
	return out
}

func (c *Controller) note(routes []Route, problems []error) {
	var st Status
	for _, r := range routes {
		st.Routes = append(st.Routes, r.String())
	}
	for _, p := range problems {
		if p != nil {
			st.Problems = append(st.Problems, p.Error())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(st.Routes, c.status.Routes) {
		c.cfg.Log.Info("routes to other nodes", "routes", st.Routes)
	}
	c.status = st
}

// strip keeps of a Node what FromObject reads.
func strip(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion},
		Spec:       corev1.NodeSpec{PodCIDRs: n.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: n.Status.Addresses},
	}, nil
}
