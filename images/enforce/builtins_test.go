package enforce

import (
	"slices"
	"testing"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins" // registers containerd's plugins
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// TestContainerdsOwnPlugins: the containerd that is linked can be guarded, and
// its plugins still find an order in which to start.
func TestContainerdsOwnPlugins(t *testing.T) {
	before := registry.Graph(nil)
	after, err := newSite(t).Plugins(before)
	if err != nil {
		t.Fatal(err)
	}
	var all plugin.Registry
	for i := range after {
		all = all.Register(&after[i])
	}
	order := all.Graph(nil) // panics on a circle
	if len(order) != len(before)+1 {
		t.Errorf("%d plugins became %d", len(before), len(order))
	}
	at := func(kind plugin.Type, id string) int {
		return slices.IndexFunc(order, func(r plugin.Registration) bool { return r.Type == kind && r.ID == id })
	}
	if verifier, transfer := at(plugins.ImageVerifierPlugin, "bothy"), at(plugins.TransferPlugin, "local"); verifier < 0 || verifier > transfer {
		t.Errorf("pulls start at %d, before their verifier at %d", transfer, verifier)
	}
}
