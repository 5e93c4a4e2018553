package netdata

import (
	"context"
	"errors"

	"github.com/bothy-os/bothy/netdata/flows"
	"github.com/bothy-os/bothy/netdata/loader"
	"github.com/bothy-os/bothy/netdata/maps"
)

// errNotLoaded is for questions that come before the dataplane.
var errNotLoaded = errors.New("the dataplane is not loaded yet; `bothy status` says what it waits for")

func (n *Network) newHub(dp *loader.Dataplane) *flows.Hub {
	listen := func(kinds maps.EventKinds) (flows.Listener, error) { return dp.Tables.Listen(kinds) }
	return flows.NewHub(listen, n.names, n.log)
}

// WatchFlows calls visit with flows that match as they happen; see [flows.Hub.Watch].
func (n *Network) WatchFlows(ctx context.Context, filter flows.Filter, visit func([]flows.Flow, flows.Lost) error) error {
	k := n.kernel.Load()
	if k == nil {
		return errNotLoaded
	}
	defer n.names.forget()
	return k.hub.Watch(ctx, filter, visit)
}

// FlowTable lists the flows that conntrack knows; see [flows.Table].
func (n *Network) FlowTable(filter flows.Filter) ([]flows.Entry, error) {
	k := n.kernel.Load()
	if k == nil {
		return nil, errNotLoaded
	}
	defer n.names.forget()
	return flows.Table(k.Tables, filter, n.names)
}
