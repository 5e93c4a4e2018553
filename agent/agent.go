package agent

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"go.opentelemetry.io/otel/attribute"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/identity"
	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/bootstrap/roster"
	"github.com/bothy-os/bothy/internal/logfile"
	"github.com/bothy-os/bothy/internal/memory"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/internal/tracing"
	"github.com/bothy-os/bothy/internal/version"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/reconciler"
)

// rbac is what the agent itself may do.
//
//go:embed rbac.yaml
var rbac []byte

// hall is the agent at work.
type hall struct {
	env        *boot.Environment
	boot       *v1alpha1.BootConfig
	log        *slog.Logger
	paths      paths.Paths
	reconciler *reconciler.Reconciler
	outer      *supervise.Supervisor
	standby    *standby
	node       *nodeWatch
	milestones *milestones
	tracing    *tracing.Provider
	// identity makes, or reads, the machine's key when it is first asked for.
	identity func() (*identity.Identity, error)
	machines *machines
	// settings keeps those of the machine.
	settings settingsKeeper
	// os keeps the machine's operating system.
	os *osUpdates
	// pauses has the site component stop and go on.
	pauses chan pause
	// rosterFile is what the API server, and whoever gives images to other nodes, goes by.
	rosterFile *roster.Reader

	mu sync.Mutex
	// members are the machines that the accepted commit enrols.
	members roster.Roster
	workers []*v1alpha1.Machine
	// held is why nothing runs although there is a commit; nil if something may.
	held error
	// site is what runs for the accepted commit; nil before there is one.
	site *runningSite
	// changed is closed when the site is replaced.
	changed chan struct{}
}

// Run is the life of `bothy agent`. It returns when ctx ends; Kubernetes and
// containers go on.
func Run(ctx context.Context) error {
	env, err := boot.LoadEnvironment()
	if err != nil {
		return err
	}
	file := logfile.Open(filepath.Join(boot.StateDir, "logs"), "agent")
	defer file.Close()
	log := file.Logger(slog.LevelInfo)
	useUpstreamLog(file)
	log.Info("agent starts", "version", version.Version, "node", env.Name, "boot", env.BootID)

	h, err := newHall(env, log)
	if err != nil {
		log.Error("agent cannot start", "err", err)
		return err
	}
	defer func() { _ = h.tracing.Close(context.WithoutCancel(ctx)) }() // spans that nobody takes are lost
	return h.outer.Run(ctx)
}

func newHall(env *boot.Environment, log *slog.Logger) (*hall, error) {
	data, err := os.ReadFile(boot.BootConfigFile)
	if err != nil {
		return nil, fmt.Errorf("read the boot configuration: %w", err)
	}
	bootConfig, err := v1alpha1.DecodeBootConfig(boot.BootConfigFile, data)
	if err != nil {
		return nil, err
	}
	h := &hall{
		standby: newStandby(env),
		env:     env, boot: bootConfig, log: log, changed: make(chan struct{}), pauses: make(chan pause),
		paths:      paths.Paths{StateDir: boot.StateDir, RunDir: boot.RunDir},
		milestones: loadMilestones(env),
		identity:   sync.OnceValues(func() (*identity.Identity, error) { return identity.Open(boot.StateDir) }),
		tracing:    tracing.NewProvider(attribute.String("service.name", "bothy"), attribute.String("service.version", version.Version), attribute.String("host.name", env.Name)),
	}
	h.node = newNodeWatch(log, env, h.paths.Kubeconfig(statusIdentity))
	h.reconciler, err = reconciler.New(reconciler.Config{
		StateDir: boot.StateDir, Boot: bootConfig, Validate: h.validate, Applies: h.applies,
		Kubeconfig: h.paths.Kubeconfig(reconcilerIdentity), Bundles: nodeImages().GitDir(),
		Machine: env.Name, Address: env.Address, Version: version.Version, Built: version.Built(), Tracing: h.tracing,
		Log: log.With("wing", "reconciler"),
	})
	if err != nil {
		return nil, err
	}
	h.rosterFile = roster.NewReader(h.paths.Roster())
	h.machines = newMachines(log, env.Name, h.paths.Kubeconfig(machineIdentity))
	if h.settings, err = h.newSettings(); err != nil {
		return nil, err
	}
	h.os = newOSUpdates(h)
	components := []supervise.Component{
		memoryComponent(), h.settingsComponent(), h.os.component(), h.statusComponent(), h.siteComponent(), h.pinsComponent(), h.siblingsComponent(),
		h.milestoneComponent(), h.identityComponent(), h.enrolmentComponent(),
	}
	components = append(components, h.reconciler.Components()...)
	h.outer, err = supervise.New(log, components...)
	return h, err
}

// memoryComponent keeps the process small, and quick when it matters.
func memoryComponent() supervise.Component {
	return supervise.Component{Name: "memory", Run: func(ctx context.Context, ready func()) error {
		ready()
		memory.Pace(ctx)
		return nil
	}}
}

// milestoneComponent notes when the node first got where it should be.
func (h *hall) milestoneComponent() supervise.Component {
	return supervise.Component{Name: "milestones", Run: func(ctx context.Context, ready func()) error {
		ready()
		for {
			changed := h.statusChanged(ctx)
			if _, last := h.status().Milestones[workloadsReady]; last {
				<-ctx.Done() // all that this machine has are known; nothing is left to watch for
				return nil
			}
			select {
			case <-changed:
				wait(ctx, coalesce)
			case <-ctx.Done():
				return nil
			}
		}
	}}
}
