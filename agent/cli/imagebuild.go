package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/internal/version"
	osimage "github.com/bothy-os/bothy/os/image"
)

func newOS(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "os",
		Short:   "Build, install and watch the operating system of machines that run nothing but bothy",
		GroupID: "repo",
	}
	cmd.AddCommand(newOSBuild(o), newOSSeed(), newOSInstall(o), newOSSign(), newOSStatus(o), newOSRetry(o))
	return cmd
}

func newOSBuild(o *options) *cobra.Command {
	opts := osimage.Options{}
	var key, certificate string
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build disks, a boot file and an OCI artifact of the operating system",
		Long: `Build the operating system: a kernel of Debian, bothy and the container runtime on a
root file system that is checked block by block while it runs, and nothing else.

It needs no root and no daemon. The same binaries give the same bytes. Packages of
Debian are fetched with apt-get the first time, and checked against the hashes that
are built into this command.

With --secure-boot-key the boot file on the disks is signed, for firmware that knows
the certificate.`,
		Example: "  bothy os build --out build/os\n  bothy os build --flavour hardware --secure-boot-key db.key --secure-boot-cert db.pem",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if err := completeOSOptions(&opts, key, certificate); err != nil {
				return err
			}
			r, err := osimage.Build(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return printOSImage(cmd, o, r)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&opts.OutDir, "out", "build/os", "`directory` for what is built")
	fl.StringVar(&opts.CacheDir, "cache", "", "`directory` that keeps packages of Debian (default OUT/debian)")
	fl.StringVar(&opts.Flavour, "flavour", osimage.FlavourVM, "drivers: vm for virtual machines only, hardware for all")
	fl.StringVar(&opts.Name, "name", "", "beginning of all file `name`s (default \"bothy-\" and the flavour)")
	fl.StringVar(&opts.BinDir, "bin", "", "`directory` of the binaries (default where this command is)")
	fl.StringVar(&opts.ImagesDir, "images", "", "OCI layout `directory` with container images that go into the system: at least the pause image")
	fl.StringArrayVar(&opts.CommandLine, "append", nil, "`argument` for the kernel (repeatable)")
	fl.StringVar(&opts.Compression, "compression", "", "how mkfs.erofs compresses the root file system (default \"zstd,15\", which takes minutes; lz4 is quick)")
	fl.StringVar(&key, "secure-boot-key", "", "`file` with the private key for Secure Boot, PEM")
	fl.StringVar(&certificate, "secure-boot-cert", "", "`file` with its certificate, PEM")
	cmd.MarkFlagsRequiredTogether("secure-boot-key", "secure-boot-cert")
	return cmd
}

func completeOSOptions(opts *osimage.Options, key, certificate string) (err error) {
	if opts.BinDir == "" {
		if opts.BinDir, err = binDir(); err != nil {
			return err
		}
	}
	if opts.CacheDir == "" {
		opts.CacheDir = filepath.Join(opts.OutDir, "debian")
	}
	if opts.Name == "" {
		opts.Name = "bothy-" + opts.Flavour
	}
	opts.Version, opts.Time = version.Version, version.Built()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH=%q is no number of seconds", epoch)
		}
		opts.Time = time.Unix(seconds, 0)
	}
	if key != "" {
		opts.SecureBoot, err = osimage.LoadKeys(key, certificate)
	}
	return err
}

func printOSImage(cmd *cobra.Command, o *options, r *osimage.Result) error {
	if o.json() {
		return printJSON(cmd.OutOrStdout(), r)
	}
	rows := [][]string{{"FILE", "SIZE", "SHA256"}}
	for _, a := range r.Artifacts {
		hash := a.SHA256
		if a.Digest != "" {
			hash = a.Digest
		}
		rows = append(rows, []string{a.Name, mebibytes(a.Size), hash})
	}
	if err := table(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	if !r.Signed {
		fmt.Fprintln(cmd.ErrOrStderr(), "not signed: machines start this with Secure Boot switched off only; see --secure-boot-key")
	}
	return nil
}

func newOSSeed() *cobra.Command {
	var config string
	var include []string
	cmd := &cobra.Command{
		Use:   "seed [--config FILE] [--include NAME=PATH]... SEED",
		Short: "Make a volume that tells a new machine which repository it runs, or brings bundles",
		Long: `Make a volume, labelled BOTHY-SEED, with a boot configuration. A machine that has none
yet reads it when the volume is plugged in, and keeps it.

What --include names goes along: a new machine finds NAME at /var/lib/bothy/seed/NAME.
An OCI layout with the name images is imported by the container runtime. Bundles below
the name bundles are taken in by machines that run as well, and need no configuration
beside them.`,
		Example: "  bothy os seed --config boot.yaml --include images=build/images seed.img\n  bothy os seed --include bundles/berlin.tar=berlin.tar stick.img",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := seedConfig(config)
			if err != nil {
				return err
			}
			if data == nil && len(include) == 0 {
				return errors.New("there is nothing to put on the volume: name a boot configuration with --config, or something that goes along with --include")
			}
			seed := osimage.Seed{Config: data, Include: map[string]string{}}
			for _, i := range include {
				name, path, ok := strings.Cut(i, "=")
				if !ok || name == "" || path == "" {
					return fmt.Errorf("--include %q: write NAME=PATH, such as images=build/images", i)
				}
				seed.Include[name] = path
			}
			return seed.Write(args[0])
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "`file` with the boot configuration")
	cmd.Flags().StringArrayVar(&include, "include", nil, "`NAME=PATH` of a file or directory that goes along (repeatable)")
	return cmd
}

// seedConfig reads a boot configuration and checks it; no file is none.
func seedConfig(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the boot configuration: %w", err)
	}
	_, err = v1alpha1.DecodeBootConfig(file, data)
	return data, err
}

func newOSSign() *cobra.Command {
	var key, certificate, out string
	cmd := &cobra.Command{
		Use:   "sign BOOTFILE",
		Short: "Sign a boot file for Secure Boot with a key of your own",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			keys, err := osimage.LoadKeys(key, certificate)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			signed, err := keys.Sign(data, time.Now())
			if err != nil {
				return fmt.Errorf("sign %s: %w", args[0], err)
			}
			return durable.WriteFile(out, signed, 0o644)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&key, "key", "", "`file` with the private key, PEM")
	fl.StringVar(&certificate, "cert", "", "`file` with its certificate, PEM")
	fl.StringVar(&out, "out", "", "`file` for the signed boot file")
	for _, name := range []string{"key", "cert", "out"} {
		_ = cmd.MarkFlagRequired(name) // fails for flags there are not
	}
	return cmd
}
