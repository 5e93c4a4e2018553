package reconciler

import (
	"github.com/bothy-os/bothy/reconciler/endpoint"
)

// newEndpoint makes the listener of the boot configuration; nil if it has none.
func (r *Reconciler) newEndpoint() (*endpoint.Endpoint, error) {
	boot := r.cfg.Boot.Endpoint
	if boot == nil {
		return nil, nil //nolint:nilnil // no configuration is no endpoint
	}
	return endpoint.New(endpoint.Config{
		Boot: boot, StateDir: r.cfg.StateDir, MachineName: r.cfg.Machine, NodeIP: r.cfg.Address,
		Acceptor: r, Trigger: r.Trigger, Hooks: r.hooks, MaxPush: r.cfg.Limits.Fetch, Log: r.cfg.Log,
	})
}
