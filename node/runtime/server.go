package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins" // registers containerd's plugins
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/supervise"
)

// ComponentName is the name of the containerd component.
const ComponentName = "containerd"

// stopGrace is short because containerd would wait for the kubelet to end its
// event streams. Its databases are safe at any moment, a kill included.
const stopGrace = 2 * time.Second

// Component runs containerd. It is ready when the socket answers and the CRI
// service is up.
func Component(cfg Config, after []string, log *slog.Logger) supervise.Component {
	return supervise.Component{
		Name:    ComponentName,
		After:   after,
		Restart: supervise.RestartNever,
		Grace:   stopGrace,
		Run: func(ctx context.Context, ready func()) error {
			return run(ctx, cfg, log, ready)
		},
	}
}

func run(ctx context.Context, cfg Config, log *slog.Logger, ready func()) error {
	if err := prepare(cfg, log); err != nil {
		return err
	}
	m, err := inspect(cfg, log)
	if err != nil {
		return err
	}
	srv, err := start(ctx, cfg, m)
	if err != nil {
		return err
	}
	srv.Wait()
	ready()
	<-ctx.Done()
	srv.Stop()
	return nil
}

// prepare checks what has to be there and makes what may be missing.
func prepare(cfg Config, log *slog.Logger) error {
	for _, name := range []string{"runc", "containerd-shim-runc-v2"} {
		if err := checkExecutable(filepath.Join(cfg.BinDir, name)); err != nil {
			return err
		}
	}
	if err := routeLog(log); err != nil {
		return fmt.Errorf("set containerd's log level: %w", err)
	}
	// The shim is asked for its version with the plain name "runc".
	if err := prependPath(cfg.BinDir); err != nil {
		return err
	}
	// The CNI directory is watched, so it has to exist before containerd does.
	if err := os.MkdirAll(cfg.CNIConfDir, 0o755); err != nil {
		return fmt.Errorf("make directory for CNI configuration: %w", err)
	}
	for _, socket := range []string{cfg.Socket, cfg.Socket + ".ttrpc"} {
		if err := removeStaleSocket(socket); err != nil {
			return err
		}
	}
	return nil
}

func checkExecutable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("containers cannot be started: %w; it belongs beside the bothy program (make build)", err)
	}
	if st.IsDir() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("containers cannot be started: %s is not executable", path)
	}
	return nil
}

func prependPath(dir string) error {
	path := os.Getenv("PATH")
	if path == dir || strings.HasPrefix(path, dir+string(os.PathListSeparator)) {
		return nil
	}
	return os.Setenv("PATH", dir+string(os.PathListSeparator)+path)
}

// removeStaleSocket removes what a killed process left, but never the socket
// of one that is alive: two containerds on one directory destroy it.
func removeStaleSocket(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another containerd answers on %s: stop it first", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

func inspect(cfg Config, log *slog.Logger) (machine, error) {
	snapshotter, err := chooseSnapshotter(cfg.Root, log)
	if err != nil {
		return machine{}, err
	}
	resource, err := hasCapability(unix.CAP_SYS_RESOURCE)
	if err != nil {
		return machine{}, err
	}
	if !resource {
		log.Debug("no CAP_SYS_RESOURCE: containers cannot be shielded from the kernel's OOM killer more than this process is")
	}
	return machine{snapshotter: snapshotter, canLowerOOMScore: resource}, nil
}

// start follows the order of containerd's own main program.
func start(ctx context.Context, cfg Config, m machine) (*server.Server, error) {
	if err := choosePlugins(cfg.Plugins); err != nil {
		return nil, err
	}
	sc := cfg.serverConfig(m)
	if err := server.CreateTopLevelDirectories(sc); err != nil {
		return nil, fmt.Errorf("make containerd's directories: %w", err)
	}
	if err := mount.SetTempMountLocation(filepath.Join(sc.Root, "tmpmounts")); err != nil {
		return nil, fmt.Errorf("set containerd's place for temporary mounts: %w", err)
	}
	if _, err := mount.CleanupTempMounts(0); err != nil {
		return nil, fmt.Errorf("unmount what an earlier containerd left below %s: %w", sc.Root, err)
	}
	// The server must not stop in the middle of a request when ctx ends: Stop
	// ends it in order.
	srv, err := server.New(context.WithoutCancel(ctx), sc)
	if err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	if err := srv.Start(context.WithoutCancel(ctx)); err != nil {
		srv.Stop()
		return nil, fmt.Errorf("start containerd's sockets: %w", err)
	}
	return srv, nil
}

// choosePlugins replaces containerd's plugins by what choose makes of them.
func choosePlugins(choose func([]plugin.Registration) ([]plugin.Registration, error)) error {
	if choose == nil {
		return nil
	}
	chosen, err := choose(registry.Graph(nil))
	if err != nil {
		return fmt.Errorf("choose containerd's plugins: %w", err)
	}
	registry.Reset()
	for i := range chosen {
		registry.Register(&chosen[i])
	}
	return nil
}
