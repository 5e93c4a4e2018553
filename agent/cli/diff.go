package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/apply"
)

func newDiff(o *options) *cobra.Command {
	var exitCode bool
	cmd := &cobra.Command{
		Use:     "diff [REV|DIR]",
		Short:   "Show what a commit or a directory would change on this site, before it is pushed",
		GroupID: "look",
		Long: `Show what a commit or a working tree would change on this site, before it is
pushed. The agent builds it as it would build an accepted commit, Flux
Kustomizations included, and has the API server try every object without storing
it; objects that do not exist yet are shown as created, those that left as
deleted. Values of Secrets are not shown.

DIR is the root of a repository, default the current directory: its files as they
are, without those that git ignores. REV is anything that git understands in the
current directory, or a commit or branch that the agent knows.

A revision whose settings or objects would be refused is an error, exit status 1.`,
		Example: "  bothy diff\n  bothy diff HEAD~1\n  bothy diff ../site --exit-code",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			target := "."
			if len(args) > 0 {
				target = args[0]
			}
			p, err := askPreview(cmd.Context(), target, func(rev string, archive io.Reader) (*reconciler.Preview, error) {
				return c.Preview(cmd.Context(), rev, archive)
			})
			if err != nil {
				return err
			}
			if o.json() {
				err = printJSON(cmd.OutOrStdout(), p)
			} else {
				err = printPreview(cmd.OutOrStdout(), styleFor(os.Stdout), p)
			}
			switch {
			case err != nil:
				return err
			case p.Failed():
				return exitError{1}
			case exitCode && p.Changed():
				return exitError{2}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with status 2 if there are changes")
	return cmd
}

// askPreview sends the files that target names: a directory's, those of a
// revision that git knows here, or just the name of the revision.
func askPreview(ctx context.Context, target string, ask func(rev string, archive io.Reader) (*reconciler.Preview, error)) (*reconciler.Preview, error) {
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		archive, err := archiveDirectory(ctx, target)
		if err != nil {
			return nil, err
		}
		return ask("", archive)
	}
	id, err := exec.CommandContext(ctx, "git", "rev-parse", "--verify", "--quiet", "--end-of-options", target+"^{commit}").Output()
	if err != nil {
		return ask(target, nil)
	}
	rev := strings.TrimSpace(string(id))
	cmd := exec.CommandContext(ctx, "git", "archive", "--format=tar", rev)
	cmd.Stderr = os.Stderr
	if top, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output(); err == nil {
		cmd.Dir = strings.TrimSpace(string(top))
	}
	archive, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git archive %s: %w", short(rev), err)
	}
	return ask(rev, strings.NewReader(string(archive)))
}

// archiveDirectory packs a directory without what git ignores.
func archiveDirectory(ctx context.Context, dir string) (io.Reader, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = abs
	out, err := list.Output()
	if err != nil {
		return packFiles(abs, nil)
	}
	return packFiles(abs, strings.Split(strings.TrimRight(string(out), "\x00"), "\x00"))
}

func printPreview(w io.Writer, s style, p *reconciler.Preview) error {
	if p.Refused != "" {
		fmt.Fprintf(w, "%s %s\n", s.bad("would be refused:"), p.Refused)
		return nil
	}
	for _, f := range p.Files {
		fmt.Fprintf(w, "%s\n%s", s.bold(f.Path), paintDiff(s, f.Diff))
	}
	for _, sync := range p.Syncs {
		fmt.Fprintln(w, s.bold(sync.Name))
		if sync.Error != "" {
			fmt.Fprintf(w, "  %s %s\n", s.bad("fails:"), sync.Error)
		}
		for _, c := range sync.Changes {
			printChange(w, s, c)
		}
	}
	if !p.Changed() && !p.Failed() {
		fmt.Fprintln(w, "no changes")
	}
	return nil
}

func printChange(w io.Writer, s style, c apply.PlannedChange) {
	mark := map[apply.Action]string{apply.Created: s.good("+"), apply.Configured: s.warn("~"), apply.Deleted: s.bad("-")}[c.Action]
	if mark == "" {
		mark = " "
	}
	fmt.Fprintf(w, "  %s %s %s\n", mark, c.Action, c.ID)
	if c.Problem != "" {
		fmt.Fprintf(w, "      %s\n", s.bad(c.Problem))
	}
	for _, line := range strings.Split(strings.TrimRight(c.Diff, "\n"), "\n") {
		if line != "" {
			fmt.Fprintf(w, "      %s\n", paintLine(s, line))
		}
	}
}

func paintDiff(s style, diff string) string {
	var out strings.Builder
	for line := range strings.Lines(diff) {
		out.WriteString("  " + paintLine(s, strings.TrimRight(line, "\n")) + "\n")
	}
	return out.String()
}

func paintLine(s style, line string) string {
	switch {
	case strings.HasPrefix(line, "+"):
		return s.good(line)
	case strings.HasPrefix(line, "-"):
		return s.bad(line)
	}
	return line
}
