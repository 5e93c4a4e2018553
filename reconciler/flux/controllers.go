package flux

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/flux/boot"
	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/events"
	"github.com/bothy-os/bothy/reconciler/flux/notify"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// Root is how the boot repository is seen from here.
type Root = boot.Root

// Setup registers controllers with a manager.
type Setup func(ctrl.Manager, env.Env) error

// Config is what the reconciler gives.
type Config struct {
	// Kubeconfig is the path of the file of the agent's identity. It may appear
	// later.
	Kubeconfig string
	// Store receives the artifacts of all sources. The boot repository's is put
	// there by the reconciler.
	Store *source.Store
	// Hub is shared with the engine of the boot repository.
	Hub *apply.Hub
	// Root is the boot repository; nil leaves flux-system/flux-system alone.
	Root Root
	// Events reports what happens to objects. If it is nil the component makes
	// an [events.Bus] of its own and runs it.
	Events events.Recorder
	// Hooks answers the calls of Receivers; nil if there is no server for them.
	Hooks *notify.Hooks
	// StateDir is the reconciler's directory for Git; sources/ below it belongs
	// to the controllers.
	StateDir string
	// Version is the agent's version.
	Version string
	// NoCrossNamespaceRefs and DefaultServiceAccount are as in [env.Env].
	NoCrossNamespaceRefs  bool
	DefaultServiceAccount string
	Log                   *slog.Logger
}

// Controllers is the component that reconciles the objects of the Flux API.
type Controllers struct {
	cfg    Config
	setups []Setup
	// booted is closed when the objects of the boot repository are there.
	booted  chan struct{}
	metrics *metricSet

	// preparing guards what prepare does, which the component and the reconciler
	// may both ask for.
	preparing sync.Mutex
	prepared  bool
}

// New returns the component with the controllers of Flux.
func New(cfg Config) *Controllers {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controllers{cfg: cfg, booted: make(chan struct{}), metrics: newMetrics()}
	c.setups = setups(cfg, sync.OnceFunc(func() { close(c.booted) }))
	return c
}

// The pauses between attempts to reach an API server that is not there yet.
const (
	connectRetryMin = 100 * time.Millisecond
	connectRetryMax = 5 * time.Second
)

// Run is the component's body: it works until ctx ends. It calls ready when the
// definitions are served, all controllers run and the boot repository's objects
// are there.
func (c *Controllers) Run(ctx context.Context, ready func()) error {
	config, err := c.connect(ctx)
	if err != nil {
		return endOf(ctx, err)
	}
	mgr, err := c.manager(config)
	if err != nil {
		return fmt.Errorf("set up flux controllers: %w", err)
	}
	started := make(chan struct{})
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		// The manager starts it after the caches, which hold all objects then.
		close(started)
		select {
		case <-c.booted:
			ready()
		case <-ctx.Done():
		}
		return nil
	})); err != nil {
		return fmt.Errorf("set up flux controllers: %w", err)
	}
	if err := runManager(ctx, mgr, started); err != nil {
		return endOf(ctx, fmt.Errorf("flux controllers: %w", err))
	}
	return nil
}

// runManager runs a manager until ctx ends. A manager must not be stopped before
// it has started: it would spin while it waits for its caches. One that is still
// waiting for the API server is therefore left to stop by itself.
func runManager(ctx context.Context, mgr manager.Manager, started <-chan struct{}) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		defer stop()
		ended <- mgr.Start(run)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case <-started:
		stop()
		return <-ended
	default:
		go func() {
			select {
			case <-started:
				stop()
			case <-run.Done():
			}
		}()
		return nil
	}
}

// manager returns a manager with all controllers.
func (c *Controllers) manager(config *rest.Config) (ctrl.Manager, error) {
	mgr, err := newManager(config, c.cfg.Log)
	if err != nil {
		return nil, err
	}
	recorder := c.cfg.Events
	if recorder == nil {
		bus := events.New(events.Config{REST: config, Scheme: mgr.GetScheme(), Log: c.cfg.Log})
		if err := mgr.Add(manager.RunnableFunc(bus.Run)); err != nil {
			return nil, err
		}
		recorder = bus
	}
	e := env.Env{
		Store: c.cfg.Store, Events: recorder, Hub: c.cfg.Hub, RESTConfig: config,
		StateDir: c.cfg.StateDir, Metrics: c.metrics.recorder, Log: c.cfg.Log, Version: c.cfg.Version,
		NoCrossNamespaceRefs: c.cfg.NoCrossNamespaceRefs, DefaultServiceAccount: c.cfg.DefaultServiceAccount,
	}
	for _, setup := range c.setups {
		if err := setup(mgr, e); err != nil {
			return nil, err
		}
	}
	c.metrics.follow(mgr.GetCache())
	return mgr, nil
}

// endOf hides what only says that the component was told to end.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to end, which is no failure
	}
	return err
}

// connect waits until the API server answers and serves the definitions.
func (c *Controllers) connect(ctx context.Context) (*rest.Config, error) {
	retry := connectRetryMin
	var last string
	for {
		config, err := loadConfig(c.cfg.Kubeconfig)
		if err == nil {
			err = c.prepare(ctx, config)
		}
		if err == nil {
			return config, nil
		}
		if err.Error() != last {
			last = err.Error()
			c.cfg.Log.Debug("flux controllers wait for the API server", "error", last)
		}
		if err := pause(ctx, retry); err != nil {
			return nil, err
		}
		retry = min(retry*2, connectRetryMax)
	}
}

// loadConfig reads the agent's identity. Requests are not rationed on our side:
// the API server's own priority and fairness does that.
func loadConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.QPS = -1
	config.UserAgent = "bothy-flux"
	return config, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
