package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/needs"
	"github.com/bothy-os/bothy/images/store"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/sandbox"
)

func newImageImport(o *options) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "import PATH|-",
		Short: "Take the images and the repository of a bundle into the node",
		Long: `Take a bundle into the node of the state directory: a tar file, an image layout
directory, a directory with bundles in it such as that of a USB stick, or - for
standard input. Images are pinned, so that the node never removes them; the
repository in the bundle becomes a source that the node follows, by the same rules
as any other.

A node that is stopped has them when it starts. An import that was interrupted goes
on where it was when the command is run again; until it has ended, nothing of the
bundle can be run. Nothing is stored twice: the node's store and its container
runtime share the files.`,
		Example: "  bothy image import site.tar\n  bothy image import /media/usb\n  ssh depot cat site.tar | bothy image import -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			meter := newMeter(os.Stderr)
			all, err := storeOf(o.state).Import(cmd.Context(), args[0], cmd.InOrStdin(), func(n int64) { meter.show(n, args[0]) })
			meter.end()
			if err != nil {
				return err
			}
			if err := o.awaitImages(cmd.Context(), all, timeout); err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), all)
			}
			for _, b := range all {
				fmt.Fprintf(cmd.OutOrStdout(), "%d images", len(b.Images))
				if len(b.Artifacts) > 0 {
					fmt.Fprintf(cmd.OutOrStdout(), ", %d not for the container runtime", len(b.Artifacts))
				}
				fmt.Fprintf(cmd.OutOrStdout(), ", %s read, %s were here", mebibytes(b.Read), mebibytes(b.Had))
				if b.Git {
					fmt.Fprintf(cmd.OutOrStdout(), "; commit %s is offered to the node", short(b.Commit))
				}
				fmt.Fprintln(cmd.OutOrStdout())
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long a running node may take to unpack the images")
	return cmd
}

// awaitImages waits until a running node has what was imported ready to run.
func (o *options) awaitImages(ctx context.Context, all []store.Imported, timeout time.Duration) error {
	n, err := sandbox.Open(o.state)
	if err != nil || !n.Running() {
		return nil // it has them when it starts
	}
	wanted := map[string]string{}
	for _, b := range all {
		maps.Copy(wanted, b.Images)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the node has not unpacked the images after %s; see `bothy status`", timeout))
	defer cancel()
	var problem error
	client := agent.NewClient(n.Path(boot.AgentSocket))
	err = client.Follow(ctx, func(st *agent.Status) bool {
		if now, err := storeOf(o.state).Open(); st.Imports == nil || err == nil && now.Digest.String() != st.Imports.Index {
			return true // the node has not looked since
		}
		missing := 0
		for name, digest := range wanted {
			if st.Imports.Has(name, digest) {
				continue
			}
			missing++
			if text := cmp.Or(st.Imports.Failed[name], st.Imports.Denied[name]); text != "" {
				problem = fmt.Errorf("image %s: %s", name, text)
			}
		}
		if problem != nil {
			return false
		}
		return missing > 0
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err := errors.Join(err, problem); err != nil {
		return err
	}
	return client.Reconcile(ctx, false) // it looks for the repository now
}

func newImageCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check PATH",
		Short: "Find out whether a bundle or image layout is whole",
		Long: `Read a bundle or an image layout to its end, compare every blob with its digest,
and every image with what its index promises. Whom to trust is not asked here. The
exit status is 1 if something is wrong.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			problems, hashed, err := bundle.Check(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if o.json() {
				err = printJSON(cmd.OutOrStdout(), struct {
					Hashed   int64            `json:"hashed"`
					Problems []bundle.Problem `json:"problems"`
				}{hashed, problems})
			} else {
				for _, p := range problems {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", p.Where, p.What)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s hashed, %d problems\n", mebibytes(hashed), len(problems))
			}
			if err == nil && len(problems) > 0 {
				return exitError{1}
			}
			return err
		},
	}
}

func newImageExport(o *options) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "export IMAGE...",
		Short: "Write images that the node keeps into a bundle",
		Long: `Write images that the node keeps, with their signatures, into a tar file or a
directory that other nodes import, and the operating system, if a bundle brought
one. Kept are those that the accepted commit and the
one before it need, and those that were imported.`,
		Example: "  bothy image export example.org/app:1 --to app.tar",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			index, err := storeOf(o.state).Open()
			if err != nil {
				return err
			}
			opts := bundle.Options{To: to, Sources: []bundle.Source{bundle.Layout(index.Layout)}}
			for _, text := range args {
				full, err := needs.Normalize(text)
				if err != nil {
					return fmt.Errorf("image %s: %w", text, err)
				}
				if a := slices.IndexFunc(index.Standalone(), func(a layout.Image) bool { return a.Name == full || a.Name == text }); a >= 0 {
					opts.Artifacts = append(opts.Artifacts, bundle.Artifact{Reference: index.Standalone()[a].Name, Type: index.Standalone()[a].Descriptor.ArtifactType})
					continue
				}
				opts.Images = append(opts.Images, full)
			}
			list, err := bundle.Create(cmd.Context(), opts)
			if err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printListing(cmd.OutOrStdout(), list)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`FILE.tar` or directory to write")
	_ = cmd.MarkFlagRequired("to") // fails only for flags that do not exist
	return cmd
}

func newImagePrune(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "prune",
		Short: "Drop images that no accepted commit needs",
		Long: `Drop from the node's store what bundles brought for commits that were never
accepted, and what interrupted imports left. What the accepted commit and the one
before it need stays. Images that are dropped are the kubelet's to remove when it
needs the space.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dropped, err := storeOf(o.state).Prune(func(string) bool { return false }, true)
			if err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), dropped)
			}
			for _, name := range dropped {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return nil
		},
	}
}

// listStore lists what the node keeps and why.
func listStore(w io.Writer, o *options) error {
	s := storeOf(o.state)
	kept, err := s.List()
	if err != nil {
		return err
	}
	if o.json() {
		return printJSON(w, kept)
	}
	rows := [][]string{{"IMAGE", "KIND", "DIGEST", "SIZE", "ATTACHED", "KEPT FOR"}}
	for _, k := range kept {
		rows = append(rows, []string{k.Name, kind(k.Type), k.Digest[:min(19, len(k.Digest))], mebibytes(k.Size), fmt.Sprint(k.Attached), strings.Join(k.For, ", ")})
	}
	return table(w, rows)
}
