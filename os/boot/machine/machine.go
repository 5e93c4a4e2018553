package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/modules"
	"github.com/bothy-os/bothy/os/settings"
)

// ReadySignal tells process 1 that the agent can start.
const ReadySignal = unix.SIGUSR1

// RestartAgentSignal has process 1 start the agent again, which then finds another
// environment.
const RestartAgentSignal = unix.SIGUSR2

const (
	// BinDir has every program of the root file system.
	BinDir = "/usr/bin"
	// imagesDir are the container images in the root file system, seedDir what came with
	// the boot configuration.
	imagesDir = "/usr/share/bothy/images"
	seedDir   = boot.StateDir + "/seed"
	// stateDir is for what is known about the machine itself.
	stateDir = boot.StateDir + "/os"
	// The node's cgroup, as process 1 has made it.
	cgroupRoot = "/bothy"
	cgroup2Dir = "/sys/fs/cgroup" + cgroupRoot
)

// keeper is the machine at work.
type keeper struct {
	log     *slog.Logger
	changed <-chan struct{}
	screen  *screen
	clock   *clock
	modules *modules.Set

	config    *v1alpha1.BootConfig
	name      string
	engine    *settings.Engine
	addresses *addresses
	mu        sync.Mutex
	// published is what the agent was told last.
	published servers
	// servedAnew is sent to when there are other time servers.
	servedAnew chan struct{}
}

// Run is the life of `bothy-init machine`.
func Run(ctx context.Context, log *slog.Logger) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	set, err := modules.Open()
	if err != nil {
		return err
	}
	changed, err := set.Watch(ctx)
	if err != nil {
		return err
	}
	k := &keeper{
		log: log, changed: changed, screen: newScreen(release()), clock: newClock(log), modules: set, servedAnew: make(chan struct{}, 1),
	}
	go keepKernelLog(ctx, log)
	go k.screen.show(ctx)
	watchPowerButton(ctx, log)
	if err := k.clock.raise(); err != nil {
		log.Warn("the clock was not set", "err", err)
	}
	return k.explain(ctx, k.run(ctx))
}

func (k *keeper) run(ctx context.Context) error {
	if runsFromMedium() {
		return k.runInstaller(ctx)
	}
	config, err := k.awaitConfig(ctx)
	if err != nil {
		return err
	}
	if config.Install != nil { // a stick with a data partition, which goes on from there
		return k.runInstaller(ctx)
	}
	if k.resetIfAsked(ctx, config) {
		<-ctx.Done() // process 1 ends this one
		return nil
	}
	return k.serve(ctx, config)
}

// readable is how long a problem that ends this process stays on the console, unless
// something is plugged in.
const readable = 30 * time.Second

// explain shows why this process cannot go on, and gives somebody the time to read it
// before it is started again.
func (k *keeper) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	k.log.Error("cannot go on, will try again", "err", err)
	k.screen.set(func(s *state) { s.problem, s.next = err.Error(), "it is tried again by itself" })
	select {
	case <-k.changed:
	case <-time.After(readable):
	case <-ctx.Done():
	}
	return err
}

// serve brings the machine to where the agent can start, and stays.
func (k *keeper) serve(ctx context.Context, config *v1alpha1.BootConfig) error {
	k.config, k.name = config, config.MachineName
	if k.name == "" {
		k.name = defaultName()
	}
	k.screen.set(func(s *state) { s.name, s.doing, s.problem = k.name, "bringing up the network", "" })
	k.addresses = &addresses{boot: config.Network, make: func(want v1alpha1.BootNetwork, trial bool) *network {
		return &network{log: k.log, want: want, changed: k.changed, screen: k.screen, trial: trial}
	}}
	early := k.earlyParts()
	engine, err := settings.Open(settings.Config{
		Dir: filepath.Join(stateDir, "settings"), Parts: append(early, k.addresses), AfterUpdate: missingArguments,
		Applied: k.republish, Confirmed: k.confirmed, Log: k.log,
	})
	if err != nil {
		return err
	}
	k.engine = engine
	// Modules bring interfaces, and sysctls are for these.
	engine.Start(ctx, early...)
	problem, err := k.addresses.begin(ctx, engine.InForce())
	if err != nil {
		return err
	}
	if problem != nil {
		k.log.Warn("not all network interfaces are as the repository wants them", "err", problem)
		engine.Complain(k.addresses, problem)
	}
	if err := engine.Serve(ctx, boot.MachineSocket); err != nil {
		return err
	}
	k.announce(k.serversOf(engine.InForce()))
	if err := k.greet(); err != nil {
		return err
	}
	go k.clock.keep(ctx, k.ntp, k.servedAnew)
	go k.showSettings(ctx)
	go k.screen.watchRoom(ctx)
	go k.watchSeeds(ctx)
	failed := make(chan error, 1)
	go func() { failed <- engine.Run(ctx) }()
	go func() { failed <- k.screen.followAgent(ctx) }()
	return <-failed
}

// greet tells process 1 that the agent can start. One that runs already, as when this process
// was started again, is left alone unless it goes by something else.
func (k *keeper) greet() error {
	before, _ := boot.LoadEnvironment() // there is none when the machine starts
	if err := k.publish(k.addresses.current()); err != nil {
		return err
	}
	if before != nil {
		now, err := boot.LoadEnvironment()
		if err != nil {
			return err
		}
		if before.Address != now.Address || before.Uplink != now.Uplink || before.ResolvConf != now.ResolvConf {
			return unix.Kill(1, RestartAgentSignal)
		}
	}
	return unix.Kill(1, ReadySignal)
}

// earlyParts are the settings that a machine can have before its network.
func (k *keeper) earlyParts() []settings.Part {
	return []settings.Part{
		&settings.Modules{Load: k.modules.Load},
		&settings.Sysctls{Root: "/proc/sys", OriginalsFile: filepath.Join(boot.RunDir, "sysctls.json")},
		&settings.Hostname{Default: k.name},
		&settings.Disks{Dir: filepath.Join(boot.StateDir, "disks")},
	}
}

// publish writes what the agent reads when it starts.
func (k *keeper) publish(uplink *Uplink) error {
	name, resolv := k.name, resolvConf(k.asked().dns)
	if err := os.WriteFile(boot.RunDir+"/resolv.conf", []byte(resolv), 0o644); err != nil {
		return err
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	bootID := strings.ReplaceAll(strings.TrimSpace(string(id)), "-", "")
	env := &boot.Environment{
		Name: name, Address: uplink.Address, Uplink: uplink.Interface, StateDir: boot.StateDir, BinDir: BinDir,
		ImageLayouts: imageLayouts(), CgroupRoot: cgroupRoot, Cgroup2Dir: cgroup2Dir,
		ResolvConf: resolv, BootID: bootID[:16], StartedAt: poweredOn().UnixNano(), Appliance: true,
	}
	if err := writeMachineID(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(boot.EnvironmentFile, data, 0o600); err != nil {
		return err
	}
	k.screen.set(func(s *state) { s.address, s.doing = uplink.Address+" on "+uplink.Interface, "starting the agent" })
	k.log.Info("the agent can start", "name", name, "address", uplink.Address, "interface", uplink.Interface)
	return nil
}

// imageLayouts are the container images that are here without a registry.
func imageLayouts() []string {
	var out []string
	for _, dir := range []string{imagesDir, filepath.Join(seedDir, "images")} {
		if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
			out = append(out, dir)
		}
	}
	return out
}

// writeMachineID gives the machine the identifier that programs look for in
// /etc/machine-id: the same at every start.
func writeMachineID() error {
	kept := filepath.Join(stateDir, "machine-id")
	data, err := os.ReadFile(kept)
	if errors.Is(err, os.ErrNotExist) {
		var fresh []byte
		if fresh, err = os.ReadFile("/proc/sys/kernel/random/uuid"); err != nil {
			return err
		}
		data = []byte(strings.ReplaceAll(string(fresh), "-", ""))
		err = durable.WriteFile(kept, data, 0o444)
	}
	if err != nil {
		return fmt.Errorf("keep the machine's identifier: %w", err)
	}
	return os.WriteFile(boot.RunDir+"/machine-id", data, 0o444)
}

// poweredOn is when the kernel began.
func poweredOn() time.Time {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(since.Nano()))
}

// defaultName is that of a machine whose configuration does not name it: by what is
// printed on it, if anything is.
func defaultName() string {
	for _, file := range []string{"product_serial", "product_uuid"} {
		data, err := os.ReadFile("/sys/class/dmi/id/" + file)
		if name := plainName(string(data)); err == nil && name != "" {
			return "bothy-" + name
		}
	}
	return "bothy"
}

// plainName keeps what can be in a host name, and at most twelve characters of it.
func plainName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(s))
	return s[:min(len(s), 12)]
}

// release reads a field each of the description of the root file system.
func release() map[string]string {
	out := map[string]string{}
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			out[key] = strings.Trim(value, `"`)
		}
	}
	return out
}
