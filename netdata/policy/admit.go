package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// PodRef is the pod an address belongs to, as the runtime named it. The zero value is
// something that is no pod of the cluster.
type PodRef struct {
	Namespace, Name string
	// UID may be "": the runtime did not say, or it was not remembered.
	UID types.UID
}

func (r PodRef) String() string { return r.Namespace + "/" + r.Name }

// listTimeout bounds how long the API is asked for what may have come with the pod.
const listTimeout = 2 * time.Second

// Await returns when the API's policies have been read and the pod is known, so that
// Connect can put in force what applies to it. When ctx ends first, the error says what is
// missing.
func (c *Controller) Await(ctx context.Context, pod PodRef) error {
	if pod == (PodRef{}) {
		return nil
	}
	for {
		changed, missing := c.missing(pod)
		if missing == nil {
			c.catchUp(ctx, pod.Namespace)
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return missing
		}
	}
}

// catchUp reads the policies of a namespace. One that was made before the pod may be told of
// after it: they come by different watches. While the API is away, there is nothing newer than
// what is known.
func (c *Controller) catchUp(ctx context.Context, namespace string) {
	c.mu.Lock()
	list := c.list
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	policies, err := list(ctx, namespace)
	if err != nil {
		c.log.Info("the policies known are used for a new pod, the API does not answer", "namespace", namespace, "err", err)
		return
	}
	for i := range policies {
		p := &policies[i]
		c.policyChanged(p.Namespace+"/"+p.Name, p)
	}
}

// missing says what a pod has to wait for, if anything, and gives a channel that is closed when
// that may have changed.
func (c *Controller) missing(pod PodRef) (changed <-chan struct{}, missing error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.synced:
		return c.news, errors.New("NetworkPolicy is not known: the API has not been read since the agent started")
	case c.find(pod) == nil:
		return c.news, fmt.Errorf("pod %s is not known: the API has not told of it yet", pod)
	default:
		return nil, nil
	}
}

// Connect calls put with the pod's policy identity, when everything the identity refers to is
// in force; put writes the row of the address. Until the API has been read, a pod keeps the identity
// that is in the tables.
func (c *Controller) Connect(pod PodRef, addrs []netip.Addr, put func(addr netip.Addr, identity uint32) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.openWriter(); err != nil {
		return err
	}
	for _, a := range addrs {
		if pod != (PodRef{}) {
			c.attached[a] = pod
		}
	}
	if c.synced && pod != (PodRef{}) {
		if err := c.apply(); err != nil {
			return fmt.Errorf("put policy in force for pod %s: %w", pod, err)
		}
		if c.garbage {
			c.wake()
		}
	}
	for _, a := range addrs {
		identity := c.identity(pod, a)
		if err := put(a, identity); err != nil {
			return err
		}
		c.writer.Connected(a, identity)
	}
	return nil
}

func (c *Controller) identity(pod PodRef, a netip.Addr) uint32 {
	if pod == (PodRef{}) {
		return 0
	}
	if c.synced {
		return c.planned[a]
	}
	if identity, known := c.writer.Identity(a); known {
		return identity
	}
	return tables.DenyAll
}

// Disconnect forgets an address. Its row must be gone.
func (c *Controller) Disconnect(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writer != nil {
		c.writer.Disconnected(addr)
	}
	if pod, known := c.attached[addr]; known {
		delete(c.attached, addr)
		c.forgetDeparted(pod)
		c.wake()
	}
}

// forgetDeparted drops a pod that the API has forgotten before, once its last address is gone.
func (c *Controller) forgetDeparted(pod PodRef) {
	key := pod.String()
	if !c.departed[key] {
		return
	}
	for _, other := range c.attached {
		if other.String() == key {
			return
		}
	}
	delete(c.departed, key)
	delete(c.pods, key)
}

// find returns nil for a pod that is not known, or known under this name as another.
func (c *Controller) find(pod PodRef) *Pod {
	p := c.pods[pod.String()]
	if p == nil || (pod.UID != "" && p.UID != pod.UID) {
		return nil
	}
	return p
}

// setPod takes what the API says of a pod; nil is that it is gone. One that still has its
// network stays what it was until that is taken away.
func (c *Controller) setPod(key string, p *Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.pods[key]
	switch {
	case p != nil:
		delete(c.departed, key)
		if was != nil && equalPods(was, p) {
			return
		}
		c.pods[key] = p
	case was == nil:
		return
	case c.hasNetwork(key):
		c.departed[key] = true
		return
	default:
		delete(c.pods, key)
	}
	c.tell()
	c.wake()
}

func (c *Controller) hasNetwork(key string) bool {
	for _, ref := range c.attached {
		if ref.String() == key {
			return true
		}
	}
	return false
}

func equalPods(a, b *Pod) bool {
	return a.UID == b.UID && a.group == b.group && a.Node == b.Node && a.Created.Equal(b.Created) && slices.Equal(a.Addrs, b.Addrs)
}
