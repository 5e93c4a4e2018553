package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/install"
)

// installFlags are those of `bothy os install`.
type installFlags struct {
	image, config string
	include       []string
	overwrite     bool
}

func newOSInstall(o *options) *cobra.Command {
	f := &installFlags{}
	cmd := &cobra.Command{
		Use:   "install DISK",
		Short: "Write the operating system to a disk",
		Long: `Write the operating system to a disk of this machine, such as /dev/nvme0n1: partitions, the
boot file, the root file system in the first of two slots, and an empty data partition
over the rest of the disk. With --config the boot configuration goes along, and the
machine needs no seed volume.

A disk that is not blank is left alone unless --overwrite is given, and one that is in
use in any case. The partition table is written last, after everything else was read
back and compared: where the power goes in between, the disk starts nothing.

A machine installs itself when it is started from the installation medium (NAME.iso on
a stick or in a drive) with a seed volume whose boot configuration says install.`,
		Example: "  bothy os install --image build/os/bothy-vm --config boot.yaml /dev/sdb\n  bothy os install --list",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := cmd.Flags().GetBool("list")
			switch {
			case err != nil:
				return err
			case list:
				return listDisks(cmd, o)
			case len(args) != 1:
				return errors.New("say which disk, such as /dev/sdb; --list shows those that there are")
			}
			return f.run(cmd, o, args[0])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.image, "image", "build/os/bothy-vm", "beginning of the `name`s of the files that `bothy os build` has made")
	fl.StringVar(&f.config, "config", "", "`file` with the boot configuration that goes along")
	fl.StringArrayVar(&f.include, "include", nil, "`NAME=PATH` of a file or directory that goes along, as with `bothy os seed` (repeatable)")
	fl.BoolVar(&f.overwrite, "overwrite", false, "write to a disk that is not blank; all that is on it is lost")
	fl.Bool("list", false, "list the disks of this machine and do nothing")
	return cmd
}

func (f *installFlags) run(cmd *cobra.Command, o *options, device string) error {
	if os.Geteuid() != 0 {
		return errors.New("not root: disks are for root only; run this command with sudo")
	}
	target, err := findDisk(device)
	if err != nil {
		return err
	}
	source, err := install.Image(f.image)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // it was only read
	opts := install.Options{Overwrite: f.overwrite, Time: time.Now()}
	if err := f.files(&opts); err != nil {
		return err
	}
	if isTerminal(os.Stderr) && !o.json() {
		opts.Progress = func(percent int) { fmt.Fprintf(cmd.ErrOrStderr(), "\r%3d %%", percent) }
		defer fmt.Fprintln(cmd.ErrOrStderr())
	}
	if err := install.Disk(cmd.Context(), target, source, opts); err != nil {
		if errors.Is(err, install.ErrNotBlank) {
			return fmt.Errorf("%w (--overwrite)", err)
		}
		return err
	}
	if o.json() {
		return printJSON(cmd.OutOrStdout(), map[string]string{"disk": target.Device, "rootHash": source.Hash.String()})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "installed on %s\n", install.Describe(target))
	return nil
}

// files are those that go along.
func (f *installFlags) files(opts *install.Options) error {
	if f.config == "" {
		if len(f.include) > 0 {
			return errors.New("--include goes along with --config")
		}
		return nil
	}
	data, err := os.ReadFile(f.config)
	if err != nil {
		return fmt.Errorf("read the boot configuration: %w", err)
	}
	config, err := v1alpha1.DecodeBootConfig(f.config, data)
	if err != nil {
		return err
	}
	config.Install = nil
	if data, err = yaml.Marshal(config); err != nil {
		return err
	}
	opts.Files, opts.FileTrees = map[string][]byte{filepath.Base(boot.BootConfigFile): data}, map[string]string{}
	for _, i := range f.include {
		name, path, ok := strings.Cut(i, "=")
		if !ok || !filepath.IsLocal(name) || path == "" {
			return fmt.Errorf("--include %q: write NAME=PATH, such as images=build/images", i)
		}
		opts.FileTrees[filepath.Join("seed", name)] = path
	}
	return nil
}

// findDisk returns the disk of a device, by any of its names.
func findDisk(device string) (*disks.Disk, error) {
	resolved, err := filepath.EvalSymlinks(device)
	if err != nil {
		return nil, err
	}
	all := disks.List()
	for i := range all {
		if all[i].Device == resolved {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("%s is no disk that can be installed on: `bothy os install --list` shows those that there are", device)
}

func listDisks(cmd *cobra.Command, o *options) error {
	all := disks.List()
	if o.json() {
		return printJSON(cmd.OutOrStdout(), all)
	}
	rows := [][]string{{"DISK", "SIZE", "MODEL", "SERIAL", "PARTITIONS", "IN USE"}}
	for _, d := range all {
		rows = append(rows, []string{d.Device, fmt.Sprintf("%.1f GiB", float64(d.Size)/(1<<30)), d.Model, d.Serial, strings.Join(d.Partitions, " "), d.InUse})
	}
	return table(cmd.OutOrStdout(), rows)
}
