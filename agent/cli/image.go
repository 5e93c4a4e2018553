package cli

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/images/build"
)

func newImage(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Build, sign, carry, keep and verify container images without a daemon or a registry",
		GroupID: "repo",
	}
	cmd.AddCommand(newImageBuild(o), newImageSign(o), newImageList(o), newImageImport(o), newImageCheck(o), newImageExport(o), newImagePrune(o), newImageVerify(o))
	return cmd
}

func newImageBuild(o *options) *cobra.Command {
	var layout string
	var fromGo, fromC, fromBinary, fromRootFS []string
	var prune bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build images from source into an OCI layout directory",
		Long: `Build images into an OCI layout directory that a node imports at start (bothy up
--images). The same source gives the same digest, byte for byte. Images run as
an unprivileged user and hold nothing but what is named here.`,
		Example: "  bothy image build --layout images --go ./cmd/app=example.org/app:1 --rootfs dist=example.org/tools:1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts := build.Options{LayoutDir: layout, Prune: prune, Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
			for _, g := range []struct {
				flag   string
				values []string
				source func(string) build.Source
			}{
				{"go", fromGo, func(s string) build.Source { return build.Source{GoPackage: s} }},
				{"c", fromC, func(s string) build.Source { return build.Source{CFile: s} }},
				{"binary", fromBinary, func(s string) build.Source { return build.Source{Binary: s} }},
				{"rootfs", fromRootFS, func(s string) build.Source { return build.Source{RootFS: s} }},
			} {
				for _, v := range g.values {
					source, name, ok := strings.Cut(v, "=")
					if !ok || source == "" || name == "" {
						return fmt.Errorf("--%s %q: write SOURCE=IMAGE, such as ./cmd/app=example.org/app:1", g.flag, v)
					}
					opts.Images = append(opts.Images, build.Image{Name: name, Source: g.source(source)})
				}
			}
			results, err := build.Build(cmd.Context(), opts)
			if err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), results)
			}
			rows := [][]string{{"IMAGE", "DIGEST", "SIZE", "CHANGED"}}
			for _, r := range results {
				rows = append(rows, []string{r.Name, r.Digest[:19], mebibytes(r.Size), fmt.Sprint(r.Changed)})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&layout, "layout", "build/images", "OCI layout `directory`, made if missing")
	fl.StringArrayVar(&fromGo, "go", nil, "`PACKAGE=IMAGE`: a Go main package, built statically")
	fl.StringArrayVar(&fromC, "c", nil, "`FILE=IMAGE`: a C file, linked statically")
	fl.StringArrayVar(&fromBinary, "binary", nil, "`FILE=IMAGE`: a finished static executable")
	fl.StringArrayVar(&fromRootFS, "rootfs", nil, "`DIRECTORY=IMAGE`: a root file system")
	fl.BoolVar(&prune, "prune", false, "remove images that are not named here")
	return cmd
}

func newImageList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "ls [LAYOUT]",
		Aliases: []string{"list"},
		Short:   "List the images that the node keeps, or those of an OCI layout directory",
		Long: `List the images that the node of the state directory keeps, and for which commits;
or those of an OCI layout directory, of which every blob is checked.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listStore(cmd.OutOrStdout(), o)
			}
			list, err := build.List(args[0])
			if err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), list)
			}
			rows := [][]string{{"IMAGE", "KIND", "DIGEST", "SIZE", "PROBLEM"}}
			for _, i := range list {
				rows = append(rows, []string{i.Name, kind(i.Type), i.Digest[:19], mebibytes(i.Size), i.Problem})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
