package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/install"
)

// runsFromMedium says whether the machine was started from an installation medium: one
// without a data partition.
func runsFromMedium() bool {
	_, err := os.Stat(boot.MediumFile)
	return err == nil
}

// runInstaller writes the system to a disk as soon as a boot configuration says to which,
// and then starts the machine from there.
func (k *keeper) runInstaller(ctx context.Context) error {
	for {
		err := k.install(ctx)
		if err == nil {
			<-ctx.Done() // process 1 ends this one
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k.log.Warn("nothing is installed yet", "err", err)
		if err := k.awaitChange(ctx); err != nil {
			return err
		}
	}
}

// install installs once. Why it could not is on the console.
func (k *keeper) install(ctx context.Context) error {
	fail := func(problem error, next string) error {
		k.screen.set(func(s *state) { s.doing, s.problem, s.next = "installation medium", problem.Error(), next })
		return problem
	}
	f, err := k.search()
	if err != nil {
		return fail(err, "plug in a volume labelled BOTHY-SEED with "+boot.SeedConfig+" on it that says install; `bothy os seed` makes one")
	}
	k.screen.set(func(s *state) { s.name = f.config.MachineName })
	if f.config.Install == nil {
		return fail(fmt.Errorf("the boot configuration %s does not say which disk to install on", f.from), "add install with a disk to it; this machine has "+k.describeDisks())
	}
	target, err := install.Choose(disks.List(), &f.config.Install.Disk)
	if err != nil {
		return fail(err, "correct install.disk in "+f.from)
	}
	commandLine, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fail(err, "it is tried again when something is plugged in")
	}
	source, err := install.Running(string(commandLine))
	if err != nil {
		return fail(err, "plug in the medium again")
	}
	defer func() { _ = source.Close() }() // it was only read
	began := time.Now()
	k.log.Info("installing", "disk", install.Describe(target), "from", source.Device)
	opts := install.Options{Overwrite: f.config.Install.Overwrite, Time: k.clock.floor, Progress: func(percent int) {
		k.screen.set(func(s *state) {
			s.doing, s.problem, s.next = fmt.Sprintf("installing on %s: %d %%", install.Describe(target), percent), "", ""
		})
	}}
	if opts.Files, opts.FileTrees, err = installedFiles(f.config); err != nil {
		return fail(err, "it is tried again when something is plugged in")
	}
	if err := k.modules.Load("loop"); err != nil {
		k.log.Warn("the loop driver was not loaded", "err", err)
	}
	if err := install.Disk(ctx, target, source, opts); err != nil {
		next := "use another disk"
		if errors.Is(err, install.ErrNotBlank) {
			next = "use another disk, or write install.overwrite: true to lose what is on this one"
		}
		return fail(err, next)
	}
	k.log.Info("installed", "disk", target.Device, "took", time.Since(began).Round(time.Millisecond))
	ending, signal := "starting the machine again", unix.SIGTERM
	if f.config.Install.PowerOff {
		ending, signal = "switching the machine off", PowerOffSignal
	}
	k.screen.set(func(s *state) {
		s.doing, s.problem, s.next = "installed on "+install.Describe(target)+", "+ending, "", "remove the medium"
	})
	select {
	case <-time.After(lastShown):
	case <-ctx.Done():
	}
	return unix.Kill(1, signal)
}

// lastShown is how long somebody can read what the console shows last.
const lastShown = 3 * time.Second

// installedFiles are what the new system starts with: the configuration, and what came
// along with it.
func installedFiles(config *v1alpha1.BootConfig) (files map[string][]byte, trees map[string]string, err error) {
	plain := *config
	plain.Install = nil
	data, err := yaml.Marshal(&plain)
	if err != nil {
		return nil, nil, err
	}
	name, err := filepath.Rel(boot.StateDir, boot.BootConfigFile)
	if err != nil {
		return nil, nil, err
	}
	files = map[string][]byte{name: data}
	if _, err := os.Stat(seedDir); err == nil {
		trees = map[string]string{filepath.Base(seedDir): seedDir}
	}
	return files, trees, nil
}

func (*keeper) describeDisks() string {
	all := disks.List()
	if len(all) == 0 {
		return "no disk"
	}
	var out []string
	for i := range all {
		text := install.Describe(&all[i])
		if all[i].InUse != "" {
			text += ", " + all[i].InUse
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}
