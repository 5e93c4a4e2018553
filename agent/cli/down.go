package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/os/sandbox"
)

func newDown(o *options) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "Stop the node and remove everything it has outside its state directory",
		GroupID: "node",
		Long: `Stop the node: containers are asked to end, then its processes, mounts, links,
BPF programs and cgroups go. The state directory stays, so that ` + "`bothy up`" + ` brings
the same cluster back; --purge deletes that too, with all keys and volumes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("not root: run this command with sudo")
			}
			n, err := sandbox.Open(o.state)
			if errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(cmd.ErrOrStderr(), "there is no node in %s\n", o.state)
				return nil
			}
			if err != nil {
				return err
			}
			wasRunning := n.Running()
			if wasRunning {
				fmt.Fprintf(cmd.ErrOrStderr(), "stopping node %s\n", n.Name)
			}
			if err := n.Stop(cmd.Context()); err != nil {
				return err
			}
			if purge {
				if err := n.Purge(); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "node %s is gone, with its state\n", n.Name)
				return nil
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "node %s is stopped; its state is kept in %s\n", n.Name, o.state)
			return nil
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete the state directory too: keys, etcd and volumes")
	return cmd
}
