package cli

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/internal/version"
	osimage "github.com/bothy-os/bothy/os/image"
)

func newOS(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "os",
		Short:   "Build the operating system of machines that run nothing but bothy",
		GroupID: "repo",
	}
	cmd.AddCommand(newOSBuild(o))
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
