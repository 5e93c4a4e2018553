package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/repository"
)

func newTrust(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "trust",
		Short:   "Show and change who may sign",
		GroupID: "repo",
		Long: `Show and change trust/root.yaml in a work tree. The commands edit the file, raise
its version and keep comments; a machine follows only once the change is committed
with a signature that the trust root before it allows. With --commit, git commit -S
is run with your own settings, and the commit is checked the way a machine would.`,
	}
	t := &trustCommand{options: o}
	cmd.PersistentFlags().StringVarP(&t.dir, "dir", "C", ".", "work tree, a `directory` of the repository")
	cmd.AddCommand(t.show(), t.add(), t.remove(), t.rotate(), t.rule())
	return cmd
}

type trustCommand struct {
	*options
	dir     string
	commit  bool
	message string
}

// changing adds the flags of commands that change the trust root.
func (t *trustCommand) changing(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&t.commit, "commit", false, "commit the change, signed, and check that a machine would follow it")
	cmd.Flags().StringVarP(&t.message, "message", "m", "", "`message` of the commit (default: what changes)")
	return cmd
}

// change makes a change and saves or commits it.
func (t *trustCommand) change(cmd *cobra.Command, edit func(*repository.Trust) error) error {
	trust, err := repository.OpenTrust(t.dir)
	if err != nil {
		return err
	}
	if err := edit(trust); err != nil {
		return err
	}
	s := styleFor(os.Stdout)
	if !t.commit {
		if err := trust.Save(); err != nil {
			return err
		}
		if t.json() {
			return t.print(cmd.OutOrStdout(), trust.Root)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s; version %d. Commit it, signed: git commit -S -m %q trust\n",
			s.good("written"), strings.Join(trust.Changes(), ", "), trust.Root.Version, "trust: "+strings.Join(trust.Changes(), ", "))
		return nil
	}
	id, step, err := trust.Commit(cmd.Context(), t.message)
	if err != nil {
		return err
	}
	if t.json() {
		return printJSON(cmd.OutOrStdout(), map[string]any{"commit": id, "step": step})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s, signed by %s: %s; trust root %d → %d. Push it when you are ready.\n",
		s.good("committed"), short(id), step.Signer.Signer, strings.Join(trust.Changes(), ", "), step.RootVersion, trust.Root.Version)
	return nil
}

func (t *trustCommand) print(out io.Writer, root *v1alpha1.TrustRoot) error {
	sum, err := repository.SummarizeTrust(root, time.Now())
	if err != nil {
		return err
	}
	if t.json() {
		return printJSON(out, sum)
	}
	s := styleFor(os.Stdout)
	fmt.Fprintf(out, "version %d\n\n", sum.Version)
	rows := [][]string{{"SIGNER", "KIND", "VALID", "RULES", "TRUST", "FINGERPRINT", "OWNER"}}
	for _, signer := range sum.Signers {
		changes := "no"
		if signer.ChangesTrust {
			changes = "yes"
		}
		rows = append(rows, []string{signer.Name, signer.Kind, signer.Validity(), ruleNumbers(signer.Rules, len(sum.Rules)), changes, strings.Join(signer.Fingerprints, " "), signer.Owner})
	}
	if err := table(out, rows); err != nil {
		return err
	}
	if len(sum.Rules) == 0 {
		fmt.Fprintln(out, "\n"+s.dim("There are no rules: every signer may change everything."))
		return nil
	}
	fmt.Fprintln(out)
	rows = [][]string{{"RULE", "SIGNERS", "NEEDED", "PATHS"}}
	for i, r := range sum.Rules {
		rows = append(rows, []string{strconv.Itoa(i), strings.Join(r.Signers, " "), strconv.Itoa(r.Threshold), strings.Join(r.Paths, " ")})
	}
	return table(out, rows)
}

func ruleNumbers(rules []int, all int) string {
	switch {
	case all == 0:
		return "all"
	case len(rules) == 0:
		return "none"
	}
	var out []string
	for _, r := range rules {
		out = append(out, strconv.Itoa(r))
	}
	return strings.Join(out, ",")
}

func (t *trustCommand) show() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Print signers, their keys and what they may change",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			trust, err := repository.OpenTrust(t.dir)
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), trust.Root)
		},
	}
}

// keyFlags are the ways to give a key.
func keyFlags(fl *pflag.FlagSet, s *repository.SignerSource) {
	fl.StringVar(&s.SSHKey, "ssh-key", "", "`file` with an OpenSSH public key, or - for standard input")
	fl.StringVar(&s.OpenPGP, "gpg-key", "", "`key` of your key ring, or a file with an armored public key")
	fl.StringVar(&s.CertificateAuthorities, "x509-ca", "", "`file` with PEM certificates of the authorities of an x509 signer")
	fl.StringVar(&s.TrustedRoot, "sigstore-root", "", "`file` with a Sigstore trusted root (trusted_root.json), for gitsign")
	fl.StringVar(&s.Subject, "subject", "", "e-mail `address` or URI in the x509 certificate; * and ** are wildcards")
	fl.StringVar(&s.Issuer, "issuer", "", "`URL` of who vouches for the subject to Sigstore")
	fl.StringVar(&s.TransparencyLogKeys, "log-key", "", "`file` with PEM public keys of transparency logs, with --x509-ca")
	fl.StringVar(&s.TimestampAuthorities, "timestamp-ca", "", "`file` with PEM certificates of time-stamp services, with --x509-ca")
}

func (t *trustCommand) add() *cobra.Command {
	var source repository.SignerSource
	var notAfter string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a signer",
		Long: `Add a signer. If the trust root has rules, name the signer in one of them
afterwards (bothy trust rule): a signer that no rule names may change nothing.`,
		Example: `  bothy trust add bob --ssh-key bob.pub --commit
  curl -s https://git.example.org/carol.keys | bothy trust add carol --keys -
  bothy trust add dave --sigstore-root trusted_root.json --subject dave@example.org --issuer https://accounts.google.com`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			source.Stdin = cmd.InOrStdin()
			list, err := source.Signers(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if notAfter != "" {
				end, err := parseDay(notAfter)
				if err != nil {
					return err
				}
				for i := range list {
					list[i].NotAfter = &end
				}
			}
			return t.change(cmd, func(trust *repository.Trust) error { return trust.Add(list...) })
		},
	}
	keyFlags(cmd.Flags(), &source)
	cmd.Flags().StringVar(&source.Keys, "keys", "", "`file` with several OpenSSH public keys, as forges publish them, or -")
	cmd.Flags().StringVar(&notAfter, "not-after", "", "`day` (2027-12-31) or RFC 3339 time after which signatures do not count")
	return t.changing(cmd)
}

func parseDay(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.Add(24*time.Hour - time.Second), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--not-after %s: write a day such as 2027-12-31, or an RFC 3339 time", text)
	}
	return at.UTC().Truncate(time.Second), nil
}

func (t *trustCommand) remove() *cobra.Command {
	return t.changing(&cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a signer",
		Long: `Remove a signer, also from the rules. The next commit that the signer signs is
refused. The last signer cannot be removed, nor one whom a rule cannot do without.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.change(cmd, func(trust *repository.Trust) error { return trust.Remove(args[0]) })
		},
	})
}

func (t *trustCommand) rotate() *cobra.Command {
	var source repository.SignerSource
	cmd := &cobra.Command{
		Use:     "rotate NAME",
		Short:   "Give a signer a new key",
		Long:    `Give a signer a new key; the name and the rules stay. Commit it with the old key, or as another signer.`,
		Example: `  bothy trust rotate alice --ssh-key ~/.ssh/id_new.pub --commit`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			source.Stdin = cmd.InOrStdin()
			list, err := source.Signers(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return t.change(cmd, func(trust *repository.Trust) error { return trust.Rotate(args[0], list[0]) })
		},
	}
	keyFlags(cmd.Flags(), &source)
	return t.changing(cmd)
}

func (t *trustCommand) rule() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rule",
		Short: "Change what signers may change",
		Long: `Change the rules. A file may be changed if at least one rule that covers its path is
satisfied; without rules every signer may change everything. A rule with --needs 2
asks for a signed merge of a commit that another signer of the rule signed.`,
	}
	cmd.AddCommand(t.ruleAdd(), t.ruleSet(), t.ruleRemove())
	return cmd
}

func ruleFlags(fl *pflag.FlagSet, r *v1alpha1.Rule) {
	fl.StringSliceVar(&r.Signers, "signers", nil, "`names` of the signers, with commas between")
	fl.StringSliceVar(&r.Paths, "paths", nil, "`patterns` of paths, such as apps/**, with commas between")
	fl.IntVar(&r.Threshold, "needs", 1, "how many different signers a change needs: 1 or 2")
}

func (t *trustCommand) ruleAdd() *cobra.Command {
	var rule v1alpha1.Rule
	cmd := &cobra.Command{
		Use:     "add",
		Short:   "Add a rule",
		Example: `  bothy trust rule add --signers bob,carol --paths 'apps/**'`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.change(cmd, func(trust *repository.Trust) error { return trust.AddRule(rule) })
		},
	}
	ruleFlags(cmd.Flags(), &rule)
	return t.changing(cmd)
}

func (t *trustCommand) ruleSet() *cobra.Command {
	var rule v1alpha1.Rule
	cmd := &cobra.Command{
		Use:   "set NUMBER",
		Short: "Replace a rule; bothy trust show numbers them",
		Long:  "Replace a rule. What is not given stays as it is.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.change(cmd, func(trust *repository.Trust) error {
				at, err := ruleNumber(args[0])
				if err != nil {
					return err
				}
				next := rule
				if at < len(trust.Root.Rules) {
					old := trust.Root.Rules[at]
					if next.Signers == nil {
						next.Signers = old.Signers
					}
					if next.Paths == nil {
						next.Paths = old.Paths
					}
					if !cmd.Flags().Changed("needs") {
						next.Threshold = old.Threshold
					}
				}
				return trust.SetRule(at, next)
			})
		},
	}
	ruleFlags(cmd.Flags(), &rule)
	return t.changing(cmd)
}

func (t *trustCommand) ruleRemove() *cobra.Command {
	return t.changing(&cobra.Command{
		Use:   "remove NUMBER",
		Short: "Remove a rule",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := ruleNumber(args[0])
			if err != nil {
				return err
			}
			return t.change(cmd, func(trust *repository.Trust) error { return trust.RemoveRule(at) })
		},
	})
}

func ruleNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not the number of a rule; bothy trust show prints them", text)
	}
	return n, nil
}
