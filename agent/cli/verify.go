package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/repository"
)

// siteCheck judges the files of a site, whose directory is path, in a commit.
type siteCheck func(ctx context.Context, files fs.FS, path string) error

// newVerify makes the command. The checks are made for --path.
func newVerify(o *options, checks ...siteCheck) *cobra.Command {
	var opts repository.VerifyOptions
	var trustRoot, path string
	cmd := &cobra.Command{
		Use:     "verify REPO",
		Short:   "Check offline whether a machine would follow a repository",
		GroupID: "repo",
		Long: `Check a repository by the rules that a machine applies before it follows a commit:
who signed each commit, whether the trust root before it allows that, which files
each signer may change, and with how many others. REPO is a work tree, a bare
repository, or a URL. Nothing but the repository is asked, and nothing is changed.

The chain of trust starts from the commit given with --from, as on a machine that
runs it; or from the trust root given with --trust-root, as on a machine that boots
with it; else from the trust root that the history begins with.

One line is printed per commit. The exit status is 1 if one is refused, with the
rule, the problem and what to do about it.`,
		Example: `  bothy verify . --from origin/main~1   # in a pipeline: what this push adds
  bothy verify https://git.example.org/site.git --trust-root boot-root.yaml
  bothy verify . --path clusters/default`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Repository = args[0]
			if trustRoot != "" {
				data, err := os.ReadFile(trustRoot)
				if err != nil {
					return fmt.Errorf("--trust-root: %w", err)
				}
				if opts.TrustRoot, err = v1alpha1.DecodeTrustRoot(trustRoot, data); err != nil {
					return err
				}
			}
			if path != "" {
				for _, check := range checks {
					opts.Checks = append(opts.Checks, func(ctx context.Context, files fs.FS) error { return check(ctx, files, path) })
				}
			}
			return runVerify(cmd, o, opts)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&opts.Branch, "branch", "", "`branch` to verify (default: the one that is checked out, else main)")
	fl.StringVar(&opts.From, "from", "", "`commit` that counts as accepted; those after it are verified")
	fl.StringVar(&trustRoot, "trust-root", "", "`file` with the trust root of a boot configuration")
	fl.StringVar(&path, "path", "", "also check the files of the site in this `directory`, such as clusters/default")
	fl.StringVar(&opts.CredentialsFile, "credentials", "", "`file` with credentials for a URL, as in the boot configuration")
	cmd.MarkFlagsMutuallyExclusive("from", "trust-root")
	return cmd
}

func runVerify(cmd *cobra.Command, o *options, opts repository.VerifyOptions) error {
	out, s := cmd.OutOrStdout(), styleFor(os.Stdout)
	var list *stepList
	if o.json() {
		list = &stepList{out: out}
		opts.Report = list.add
	} else {
		opts.Report = func(step acceptance.Step) { printStep(out, s, step) }
	}
	v, err := repository.Verify(cmd.Context(), opts)
	if err != nil {
		return err
	}
	if list != nil {
		err = list.end(v)
	} else {
		err = printVerification(out, s, v)
	}
	if err == nil && !v.Accepted {
		return exitError{1}
	}
	return err
}

// stepList writes {"steps": […], "verification": …} as the steps come, so that
// a long history takes no memory.
type stepList struct {
	out   io.Writer
	count int
	err   error
}

func (l *stepList) add(step acceptance.Step) {
	if l.err != nil {
		return
	}
	separator := ",\n    "
	if l.count == 0 {
		separator = "{\n  \"steps\": [\n    "
	}
	l.count++
	data, err := json.Marshal(step)
	if err == nil {
		_, err = fmt.Fprintf(l.out, "%s%s", separator, data)
	}
	l.err = err
}

func (l *stepList) end(v *repository.Verification) error {
	if l.err != nil {
		return l.err
	}
	data, err := json.MarshalIndent(v, "  ", "  ")
	if err != nil {
		return err
	}
	begin := "\n  ],\n"
	if l.count == 0 {
		begin = "{\n  \"steps\": [],\n"
	}
	_, err = fmt.Fprintf(l.out, "%s  \"verification\": %s\n}\n", begin, data)
	return err
}

func printStep(out io.Writer, s style, step acceptance.Step) {
	mark, by := s.good("ok     "), s.dim("not verified")
	if step.Signer != nil {
		by = fmt.Sprintf("%s (%s %s)", step.Signer.Signer, step.Signer.Kind, fingerprint(step.Signer.Fingerprint))
		if step.Signer.Identity != "" {
			by = fmt.Sprintf("%s (%s)", step.Signer.Signer, step.Signer.Identity)
		}
	}
	if step.Refusal != nil {
		mark, by = s.bad("refused"), s.bad(step.Refusal.Rule)
	}
	fmt.Fprintf(out, "%s %s %s  %s  %s\n", mark, s.bold(short(step.Commit)), by, s.dim(stepReason(step)), step.Subject)
}

// fingerprint shortens what is not there to be compared.
func fingerprint(text string) string {
	const enough = 19
	if len(text) > enough {
		return text[:enough] + "…"
	}
	return text
}

// stepReason says in few words why a commit is allowed.
func stepReason(step acceptance.Step) string {
	files := fmt.Sprintf("%d files", step.Files)
	if step.Files == 1 {
		files = "1 file"
	}
	var parts []string
	switch {
	case step.Refusal != nil:
		return files
	case step.Anchor:
		parts = append(parts, "the chain starts here")
	case step.Signer == nil:
	case len(step.Rules) == 0 && step.Files > 0:
		parts = append(parts, "no rules limit signers")
	}
	for _, r := range step.Rules {
		text := fmt.Sprintf("rule %d (%s)", r.Rule, strings.Join(r.Paths, " "))
		if len(r.CoSigners) > 0 {
			text += " with " + strings.Join(r.CoSigners, ", ")
		}
		parts = append(parts, text)
	}
	if step.NewRootVersion > 0 {
		parts = append(parts, fmt.Sprintf("trust root %d → %d", step.RootVersion, step.NewRootVersion))
	}
	return strings.Join(append(parts, files), ", ")
}

func printVerification(out io.Writer, s style, v *repository.Verification) error {
	if v.Refusal != nil {
		pairs := []string{"verdict", s.bad("refused"), "commit", v.Refusal.Offender, "rule", v.Refusal.Rule, "problem", v.Refusal.Problem}
		if v.Refusal.Remedy != "" {
			pairs = append(pairs, "remedy", v.Refusal.Remedy)
		}
		fmt.Fprintln(out)
		fields(out, s, pairs...)
		return nil
	}
	fmt.Fprintln(out)
	fields(out, s,
		"verdict", s.good("accepted"),
		"commit", fmt.Sprintf("%s %q", v.Commit, v.Subject),
		"basis", v.Basis,
		"commits", fmt.Sprintf("%d verified in %s", v.Commits, seconds(v.Took)),
		"trust root", fmt.Sprintf("version %d", v.RootVersion),
	)
	return nil
}
