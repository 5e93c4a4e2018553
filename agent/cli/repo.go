package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/reconciler/repository"
)

func newRepo(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "repo", Short: "Make signed repositories", GroupID: "repo"}
	cmd.AddCommand(newRepoInit(o))
	return cmd
}

// repoResult is what `bothy repo init -o json` prints.
type repoResult struct {
	Dir         string `json:"dir"`
	URL         string `json:"url"`
	Branch      string `json:"branch"`
	Path        string `json:"path"`
	Commit      string `json:"commit"`
	Signer      string `json:"signer"`
	Fingerprint string `json:"fingerprint"`
	TrustRoot   string `json:"trustRoot"`
}

func newRepoInit(o *options) *cobra.Command {
	var opts repository.Options
	var template string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a signed Git repository from a template directory",
		Long: `Make a Git repository from a template directory, with a trust root that names one
signer, and a first commit signed with that signer's key. The work tree is set up so
that plain ` + "`git commit`" + ` signs, and ` + "`git log --show-signature`" + ` verifies.

The key is one of: an OpenSSH key (--ssh-key), a new one (--generate-key), or an
OpenPGP key of your key ring (--gpg-key).`,
		Example: `  bothy repo init --template examples/repo --dir site --bare site.git --signer alice --ssh-key ~/.ssh/id_ed25519`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if st, err := os.Stat(template); err != nil || !st.IsDir() {
				return fmt.Errorf("--template %s is not a directory", template)
			}
			opts.Template = os.DirFS(template)
			r, err := repository.Init(cmd.Context(), opts)
			if err != nil {
				return err
			}
			out := repoResult{
				Dir: r.Dir, URL: r.URL, Branch: r.Branch, Path: r.Path, Commit: r.Commit,
				Signer: r.Signer.Name, Fingerprint: r.Fingerprint, TrustRoot: filepath.Join(r.Dir, "trust", "root.yaml"),
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), out)
			}
			s := styleFor(os.Stdout)
			fields(cmd.OutOrStdout(), s,
				"work tree", out.Dir,
				"repository", out.URL,
				"commit", fmt.Sprintf("%s, signed by %s (%s %s)", short(out.Commit), s.good(out.Signer), r.Signer.Kind, out.Fingerprint),
				"trust root", out.TrustRoot,
			)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&template, "template", "", "template `directory`, such as examples/repo")
	fl.StringVar(&opts.Dir, "dir", "", "work tree to make, a `directory` that does not exist or is empty")
	fl.StringVar(&opts.Bare, "bare", "", "also make a bare repository in this `directory` and push to it")
	fl.StringVar(&opts.Branch, "branch", "main", "name of the `branch`")
	fl.StringVar(&opts.Path, "path", "clusters/default", "`directory` of the site in the template")
	fl.StringVar(&opts.SignerName, "signer", "", "`name` of the signer in the trust root (default: your name in git)")
	fl.StringVar(&opts.Key.SSH, "ssh-key", "", "sign with this OpenSSH private key `file`")
	fl.StringVar(&opts.Key.Generate, "generate-key", "", "make a new OpenSSH key in this `file` and sign with it")
	fl.StringVar(&opts.Key.OpenPGP, "gpg-key", "", "sign with this OpenPGP `key` of your key ring")
	_ = cmd.MarkFlagRequired("template") // fails only for flags that do not exist
	_ = cmd.MarkFlagRequired("dir")
	cmd.MarkFlagsMutuallyExclusive("ssh-key", "generate-key", "gpg-key")
	cmd.MarkFlagsOneRequired("ssh-key", "generate-key", "gpg-key")
	return cmd
}
