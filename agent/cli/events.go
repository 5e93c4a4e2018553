package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
)

func newEvents(o *options) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:     "events",
		Short:   "List what happened on the node: commits, components, failures",
		GroupID: "look",
		Long: `List what happened on the node, oldest first: commits accepted, refused and
applied, objects pruned, components that became ready or failed. For the events
of Kubernetes objects use kubectl.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			if !watch {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return fmt.Errorf("ask the agent: %w", err)
				}
				return o.printEvents(cmd, st.Events())
			}
			var last time.Time
			return c.Follow(cmd.Context(), func(st *agent.Status) bool {
				var fresh []agent.Event
				for _, e := range st.Events() {
					if e.Time.After(last) {
						fresh = append(fresh, e)
					}
				}
				if len(fresh) > 0 {
					last = fresh[len(fresh)-1].Time
				}
				return o.printEvents(cmd, fresh) == nil
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with new events")
	return cmd
}

func (o *options) printEvents(cmd *cobra.Command, events []agent.Event) error {
	if o.json() {
		return printJSON(cmd.OutOrStdout(), events)
	}
	s := styleFor(os.Stdout)
	for _, e := range events {
		reason := e.Reason
		if e.Warning {
			reason = s.bad(reason)
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %-12s %-12s %s\n", e.Time.Local().Format("15:04:05.000"), e.Source, reason, e.Message); err != nil {
			return err
		}
	}
	return nil
}
