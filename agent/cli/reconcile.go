package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func newReconcile(o *options) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:     "reconcile",
		Short:   "Fetch from the repository now and apply what it says",
		GroupID: "look",
		Long: `Fetch from the repository now instead of at the next poll. The command returns
when the newest commit is applied; it fails if that commit was refused.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			started := time.Now()
			if err := c.Reconcile(cmd.Context(), wait); err != nil {
				return err
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), st.Git)
			}
			if wait && st.Git.Accepted != nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %q is applied, %s, after %s\n", short(st.Git.Accepted.Commit), st.Git.Accepted.Subject, signedBy(styleFor(os.Stdout), st), seconds(time.Since(started)))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the newest commit is applied")
	return cmd
}

func newKubeconfig(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "kubeconfig",
		Short:   "Print an administrator's kubeconfig",
		GroupID: "look",
		Long: `Print a kubeconfig with the rights of an administrator and everything inside. Its
certificate is short-lived: ask again when it has expired.`,
		Example: "  bothy kubeconfig > ~/.kube/config",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			data, err := c.Kubeconfig(cmd.Context())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
}
