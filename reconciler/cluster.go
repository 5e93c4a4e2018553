package reconciler

import (
	"context"
	"log/slog"
	"sync"

	"github.com/bothy-os/bothy/reconciler/apply"
)

// cluster is the connection that everything which applies shares. It comes
// into being with the kubeconfig, which the control plane writes when it starts
// for the first time.
type cluster struct {
	kubeconfig string
	// memory is a file of the hub's: what was sent, so that a restart of the
	// process need not send it again.
	memory    string
	log       *slog.Logger
	connected chan struct{} // closed when client and hub are there

	mu     sync.Mutex
	client *apply.Client
	hub    *apply.Hub
}

func newCluster(kubeconfig, memory string, log *slog.Logger) *cluster {
	return &cluster{kubeconfig: kubeconfig, memory: memory, log: log, connected: make(chan struct{})}
}

// get returns the connection. Its error is apply.ErrUnavailable until the
// kubeconfig is there. Nothing is sent.
func (c *cluster) get() (*apply.Client, *apply.Hub, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		client, err := apply.Connect(c.kubeconfig)
		if err != nil {
			return nil, nil, err
		}
		c.client, c.hub = client, apply.NewHub(client, c.log)
		c.hub.RememberIn(c.memory)
		close(c.connected)
	}
	return c.client, c.hub, nil
}

// reload reads the kubeconfig again: a control plane that was set up anew has
// other authorities.
func (c *cluster) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return
	}
	if err := c.client.Reload(); err != nil {
		c.log.Debug("reload kubeconfig", "error", err)
	}
}

// watch is the component that keeps the watches of the managed objects.
func (c *cluster) watch(ctx context.Context, ready func()) error {
	ready()
	select {
	case <-c.connected:
	case <-ctx.Done():
		return nil
	}
	_, hub, err := c.get()
	if err != nil {
		return err
	}
	return hub.Run(ctx)
}
