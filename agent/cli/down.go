package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/os/sandbox"
)

func newDown(o *options) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "Stop the nodes and remove everything they have outside their state directory",
		GroupID: "node",
		Long: `Stop the node, or all nodes of ` + "`bothy up --nodes N`" + `, or one of them with --node:
containers are asked to end, then processes, mounts, links, BPF programs and cgroups go. The state directory stays, so that ` + "`bothy up`" + ` brings
the same cluster back; --purge deletes that too, with all keys and volumes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("not root: run this command with sudo")
			}
			workers, err := workerStates(o.state)
			if err != nil {
				return err
			}
			d := &downer{out: cmd.ErrOrStderr(), purge: purge}
			for _, dir := range workers {
				if err := d.node(cmd.Context(), dir); err != nil {
					return err
				}
			}
			if err := d.segment(o.state); err != nil {
				return err
			}
			return d.node(cmd.Context(), o.state)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete the state directory too: keys, etcd and volumes")
	return cmd
}

// downer takes nodes down.
type downer struct {
	out   io.Writer
	purge bool
}

func (d *downer) node(ctx context.Context, state string) error {
	n, err := sandbox.Open(state)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(d.out, "there is no node in %s\n", state)
		return nil
	}
	if err != nil {
		return err
	}
	if n.Running() {
		fmt.Fprintf(d.out, "stopping node %s\n", n.Name)
	}
	if err := n.Stop(ctx); err != nil {
		return err
	}
	if !d.purge {
		fmt.Fprintf(d.out, "node %s is stopped; its state is kept in %s\n", n.Name, state)
		return nil
	}
	if err := n.Purge(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "node %s is gone, with its state\n", n.Name)
	return nil
}

// segment removes the link that the nodes shared. The first node is the last on it, and needs it no more.
func (d *downer) segment(state string) error {
	s, err := sandbox.FindSegment(state)
	if err != nil || s == nil {
		return err
	}
	if err := s.Remove(); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(state, workersDir)) // not empty unless all workers were purged
	return nil
}
