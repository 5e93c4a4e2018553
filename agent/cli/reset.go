package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newReset(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "reset",
		Short:   "Make a machine of bothy's own forget everything and begin anew",
		GroupID: "node",
		Long: `Make a machine of bothy's own forget everything: keys, etcd, volumes, images, its boot
configuration. It starts again as new, waits for a seed volume, and is rebuilt from the
repository alone.

It asks first, unless --yes is given. Where nobody can run this command, a seed volume
whose boot configuration has a word in reset that the machine has not begun with does
the same.

A node of bothy up is not a machine of its own: bothy down --purge is for that.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return fmt.Errorf("ask the agent: %w; it may be starting, see `bothy logs agent`", err)
			}
			if !yes {
				if !isTerminal(os.Stdin) {
					return errors.New("nobody can be asked here: say --yes if all that the machine has may be lost")
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "Everything on %s is lost: keys, etcd, volumes. Write its name to go on: ", st.Node.Name)
				answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
				if err != nil || strings.TrimSpace(answer) != st.Node.Name {
					return errors.New("nothing was done")
				}
			}
			if err := c.Reset(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s starts again as new\n", st.Node.Name)
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
