package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/reconciler/history"
)

func newHistory(o *options) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:     "history [COMMIT]",
		Short:   "List the commits the site ran: who signed them, what they changed, how long it took",
		GroupID: "look",
		Long: `List the commits that the site accepted, newest first: who signed each, what it
changed in the site's directory, how long it took from acceptance until all
objects were sent and until all were healthy. With a commit, or the beginning of
its id, show that one with the objects it changed.`,
		Example: "  bothy history -n 5\n  bothy history 3f2a9c",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				limit = 0
			}
			entries, err := c.History(cmd.Context(), limit)
			if err != nil {
				return fmt.Errorf("ask the agent: %w", err)
			}
			if len(args) > 0 {
				return o.showCommit(cmd, entries, args[0])
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), entries)
			}
			return table(cmd.OutOrStdout(), historyRows(styleFor(os.Stdout), entries))
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 20, "show the newest `N` commits, 0 for all that are known")
	return cmd
}

func historyRows(s style, entries []history.Entry) [][]string {
	rows := [][]string{{"COMMIT", "ACCEPTED", "SIGNER", "OUTCOME", "APPLIED", "HEALTHY", "CHANGES", "SUBJECT"}}
	for _, e := range entries {
		rows = append(rows, []string{
			short(e.Commit), e.AcceptedAt.Local().Format(time.DateTime), orDash(e.Signer), outcome(s, e),
			after(e.AcceptedAt, e.AppliedAt), healthyAfter(e), changesText(e.Changes), e.Subject,
		})
	}
	return rows
}

// showCommit prints one commit in full.
func (o *options) showCommit(cmd *cobra.Command, entries []history.Entry, id string) error {
	var found []history.Entry
	for _, e := range entries {
		if strings.HasPrefix(e.Commit, id) {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("commit %s was not accepted by this site, or so long ago that it is forgotten; `bothy history -n 0` lists what is known", id)
	}
	e := found[0]
	if o.json() {
		return printJSON(cmd.OutOrStdout(), e)
	}
	s := styleFor(os.Stdout)
	signer := "not verified"
	if e.Signer != "" {
		signer = fmt.Sprintf("%s (%s %s)", e.Signer, e.Kind, e.Fingerprint)
	}
	lines := []string{
		"commit", e.Commit, "subject", e.Subject, "author", e.Author, "signer", signer,
		"after", orDash(e.From), "source", orDash(e.Source),
		"accepted", e.AcceptedAt.Local().Format(time.DateTime),
		"applied", after(e.AcceptedAt, e.AppliedAt), "healthy", healthyAfter(e),
		"outcome", outcome(s, e),
	}
	if len(e.Steps) > 0 {
		lines = append(lines, "took", stepsText(e.Steps))
	}
	if e.Message != "" {
		lines = append(lines, "reason", e.Message)
	}
	lines = append(lines, "changes", changesText(e.Changes))
	if e.Changes != nil && len(e.Changes.Objects) > 0 {
		lines = append(lines, "", strings.Join(e.Changes.Objects, "\n"))
	}
	fields(cmd.OutOrStdout(), s, lines...)
	return nil
}

func outcome(s style, e history.Entry) string {
	switch e.Outcome {
	case history.Ready:
		return s.good(string(e.Outcome))
	case history.Degraded:
		return s.bad(string(e.Outcome))
	case "":
		return s.warn("under way")
	}
	return string(e.Outcome)
}

func healthyAfter(e history.Entry) string {
	if e.Outcome != history.Ready {
		return "-"
	}
	return after(e.AcceptedAt, e.EndedAt)
}

func stepsText(steps []history.Step) string {
	parts := make([]string, 0, len(steps))
	for _, st := range steps {
		parts = append(parts, fmt.Sprintf("%s %s", st.Name, st.Took.Round(time.Millisecond)))
	}
	return strings.Join(parts, ", ")
}

func after(from, to time.Time) string {
	if to.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%.2f s", to.Sub(from).Seconds())
}

func changesText(c *history.Changes) string {
	if c == nil {
		return "-"
	}
	var parts []string
	for _, part := range []struct {
		n    int
		sign string
	}{{c.Created, "+"}, {c.Configured, "~"}, {c.Deleted, "-"}} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%s%d", part.sign, part.n))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
