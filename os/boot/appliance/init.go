package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/machine"
	"github.com/bothy-os/bothy/os/boot/modules"
)

const (
	// binDir has every program of the root file system.
	binDir = machine.BinDir
	// initName is process 1 on the root file system.
	initName       = "init"
	machineCommand = "machine"
	machineService = "machine"
	fileLimit      = 1 << 20
)

// runInit is the life of process 1. It returns when the machine cannot start or was told
// to stop.
func runInit() error {
	log := newLog("bothy-init")
	log.Info("process 1 is here")
	armed := startWatchdog(log) // where the driver is part of the kernel
	if err := mountSystem(log); err != nil {
		return err
	}
	set, err := modules.Open()
	if err != nil {
		return err
	}
	if _, err := set.Watch(context.Background()); err != nil {
		return err
	}
	if err := set.LoadHardware(); err != nil {
		log.Warn("some drivers were not loaded", "err", err)
	}
	if !armed && !startWatchdog(log) {
		log.Warn("there is no watchdog: a machine that hangs will stay so")
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"mount the data partition", func() error { return mountData(log) }},
		{"show the state directory", boot.BindState},
		{"make cgroups", makeCgroups},
		{"raise the limit of open files", raiseFileLimit},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	setSysctls(log)
	watchTrial(log)
	return keep(log)
}

// raiseFileLimit lets the agent, Kubernetes and containers open as many files as they
// need; the kernel begins with few.
func raiseFileLimit() error {
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: fileLimit, Max: fileLimit})
}

// keep runs the machine's processes until the machine is told to stop: SIGTERM and SIGINT,
// which is what Ctrl+Alt+Del becomes, start it again. The agent has to wait until the
// machine knows its name and its address.
func keep(log *slog.Logger) error {
	k := boot.NewKeeper(log,
		boot.Service{Name: machineService, Command: machineProcess},
		boot.Service{Name: boot.AgentService, Command: func() (*exec.Cmd, error) { return boot.AgentCommand(binDir) }},
	)
	k.On(machine.ReadySignal, func() { k.Start(boot.AgentService) })
	k.On(machine.RestartAgentSignal, func() { k.Restart(boot.AgentService) })
	k.Start(machineService)
	sig := k.Run(machine.PowerOffSignal, unix.SIGTERM, unix.SIGINT)
	log.Info("the machine is stopping", "signal", sig)
	k.End()
	stopData(log)
	if sig == machine.PowerOffSignal {
		return errEnded{unix.LINUX_REBOOT_CMD_POWER_OFF}
	}
	return errEnded{unix.LINUX_REBOOT_CMD_RESTART}
}

func machineProcess() (*exec.Cmd, error) {
	cmd := exec.Command(filepath.Join(binDir, "bothy-init"), machineCommand)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + binDir}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	return cmd, nil
}

// stopData leaves a clean file system behind. It cannot be unmounted while anything uses
// it; read-only it needs no recovery either.
func stopData(log *slog.Logger) {
	unix.Sync()
	if err := unix.Mount("", boot.StateDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		log.Warn("the data partition will be recovered at the next start", "err", err)
	}
}
