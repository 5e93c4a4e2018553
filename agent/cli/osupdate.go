package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
)

func newOSStatus(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show which operating system the machine runs, and what became of updates",
		Long: `Show which operating system the machine runs, which one the accepted commit names in
spec.os.image of the Cluster, how far an update is, and which images did not work. Those
are not started again; see ` + "`bothy os retry`" + `.`,
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
			if o.json() {
				return printJSON(cmd.OutOrStdout(), st.OS)
			}
			return printOS(cmd.OutOrStdout(), styleFor(os.Stdout), st.OS)
		},
	}
}

func newOSRetry(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "retry DIGEST",
		Short: "Have the machine try an image again that did not work",
		Long: `Have the machine forget that an image of the operating system did not work. If the
accepted commit names it, it is tried again at once.

It is for images that were no fault: when the repository was unreachable, or the power
failed twice. The digest is that of ` + "`bothy os status`" + `.`,
		Example: "  bothy os retry sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			return c.RetryOS(cmd.Context(), args[0])
		},
	}
}

func printOS(w io.Writer, s style, st *agent.OSStatus) error {
	if st == nil {
		return nil
	}
	fields(w, s, "system", osLine(s, st))
	if st.Update == nil {
		return nil
	}
	cur := st.Update.Current
	fields(w, s, "runs", fmt.Sprintf("version %s, flavour %s", st.Version, st.Flavour))
	if cur.Digest != "" {
		fields(w, s, "digest", cur.Digest)
	}
	fields(w, s, "since", ago(st.Update.Since))
	if t := st.Update.Trial; t != nil {
		fields(w, s, "trial", fmt.Sprintf("%s, commit %s, %s, attempt %d, has %s", t.Image, short(t.Commit), t.Phase, max(t.Attempt, 1), t.Limit))
	}
	if len(st.Update.Bad) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	rows := [][]string{{"DID NOT WORK", "COMMIT", "WHEN", "WHY"}}
	for _, b := range st.Update.Bad {
		rows = append(rows, []string{b.Digest, short(b.Commit), ago(b.At), firstLine(b.Reason)})
	}
	return table(w, rows)
}

// osLine sums up the operating system of a machine.
func osLine(s style, st *agent.OSStatus) string {
	wanted := shortImage(st.Wanted)
	switch st.Phase {
	case agent.OSForeign:
		if st.Message != "" {
			return s.warn(st.Message)
		}
		return "not bothy's"
	case agent.OSIdle:
		return "as installed; the repository names none in spec.os.image"
	case agent.OSCurrent:
		return s.good("current") + ": " + wanted
	case agent.OSFetching:
		return fmt.Sprintf("fetching %s: %s", wanted, mebibytes(st.Read))
	case agent.OSWaiting:
		return fmt.Sprintf("about to start %s, waiting %s", wanted, st.Message)
	case agent.OSOnTrial:
		line := s.warn("on trial") + ": " + wanted
		if st.Message != "" {
			line += "\n" + st.Message
		}
		return line
	case agent.OSFailed:
		return s.bad("not "+wanted) + ": " + st.Message
	}
	return fmt.Sprintf("%s %s", st.Phase, wanted)
}

// shortImage leaves as much of a digest as people compare.
func shortImage(ref string) string {
	name, digest, ok := strings.Cut(ref, "@sha256:")
	if !ok {
		return ref
	}
	return name + "@sha256:" + short(digest)
}
