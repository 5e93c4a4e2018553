// Package env is what the controllers of the Flux API are set up with.
//
// Each controller package has a Setup(ctrl.Manager, env.Env) error that registers
// its controllers with the manager, and its indexes with the manager's cache.
// What a controller shares with others is here or in the manager; controller
// packages do not import each other. Package source holds the store of artifacts
// only, so that it can be named here: the controllers of sources are in packages
// below it, such as source/git.
package env

import (
	"log/slog"

	"github.com/fluxcd/pkg/runtime/metrics"
	"k8s.io/client-go/rest"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// ShardLabel on an object of the Flux API, with any value, says that another
// controller reconciles it. This is Flux's own convention. The manager's cache
// leaves such objects out, so a controller never sees them.
const ShardLabel = "sharding.fluxcd.io/key"

// Workers is how many objects of a kind are worked on at a time. No worker ever
// waits for anything but a request to the API server or a bounded fetch.
const Workers = 4

// Env is shared by all controllers of the Flux API.
type Env struct {
	// Store hands artifacts from sources to those that build from them.
	Store *source.Store
	// Events reports what happened.
	Events events.Recorder
	// Hub is the one set of metadata watches of all apply engines.
	Hub *apply.Hub
	// RESTConfig is the agent's own identity. Copy it before changing it.
	RESTConfig *rest.Config
	// StateDir is the reconciler's directory; sources/ below it may be used for
	// mirrors and caches, which may be lost at any time.
	StateDir string
	// Metrics has Flux's conventional metrics. A controller calls RecordDuration
	// for a reconcile that did something, and DeleteDuration for an object that
	// is gone.
	Metrics *metrics.Recorder
	Log     *slog.Logger
	// Version is the agent's version.
	Version string
	// NoCrossNamespaceRefs refuses references to sources and dependencies of
	// other namespaces, as Flux's flag of this name does.
	NoCrossNamespaceRefs bool
	// DefaultServiceAccount is impersonated for objects that name none; empty
	// means the agent's own identity.
	DefaultServiceAccount string
}
