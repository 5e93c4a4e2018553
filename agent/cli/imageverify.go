package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/images/verify"
)

func newImageVerify(o *options) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "verify LAYOUT [IMAGE]... | verify IMAGE",
		Short: "Say whether images may run under an image policy, and why",
		Long: `Say whether images may run, and what each authority of the policy found.

With an OCI layout directory its images are judged as a node would judge them,
by the policy of a repository and the signatures in the layout, without a
network. With the name of an image the running node is asked, by the policy that
it has in force; also about an operating system that a bundle brought. The command fails if an image may not run.`,
		Example: `  bothy image verify build/images --policy .
  bothy image verify example.org/app:1`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			verdicts, err := judgeImages(cmd, o, from, args)
			if err != nil {
				return err
			}
			if o.json() {
				err = printJSON(cmd.OutOrStdout(), verdicts)
			} else {
				err = printVerdicts(cmd.OutOrStdout(), styleFor(os.Stdout), verdicts)
			}
			return errors.Join(err, deniedAmong(verdicts))
		},
	}
	cmd.Flags().StringVar(&from, "policy", ".", "`REPOSITORY` directory with trust/images.yaml, or that file")
	return cmd
}

func judgeImages(cmd *cobra.Command, o *options, from string, args []string) ([]verify.Verdict, error) {
	if _, err := os.Stat(filepath.Join(args[0], "index.json")); err == nil {
		p, err := readPolicy(from)
		if err != nil {
			return nil, err
		}
		return judgeLayout(p, args[0], args[1:])
	}
	c, err := o.connect()
	if err != nil {
		return nil, fmt.Errorf("%s is not an OCI layout, and there is no node to ask: %w", args[0], err)
	}
	var out []verify.Verdict
	for _, image := range args {
		v, err := c.ImageVerdict(cmd.Context(), image)
		if err != nil {
			return nil, err
		}
		if v == nil {
			v = &verify.Verdict{Image: image, Allowed: true, Reason: "the site has no image policy"}
		}
		out = append(out, *v)
	}
	return out, nil
}

// readPolicy reads the policy of a repository, by its directory or its file.
func readPolicy(from string) (*policy.Policy, error) {
	if st, err := os.Stat(from); err == nil && !st.IsDir() {
		from = filepath.Dir(filepath.Dir(from))
	}
	files, err := policy.Read(os.DirFS(from))
	if err != nil {
		return nil, err
	}
	if files == nil {
		return nil, fmt.Errorf("there is no %s below %s; name the repository with --policy", policy.File, from)
	}
	return policy.Compile(files)
}

func judgeLayout(p *policy.Policy, dir string, names []string) ([]verify.Verdict, error) {
	l, err := layout.Open(dir)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	attached := signatures.NewLayouts([]string{dir})
	var out []verify.Verdict
	for _, img := range slices.Concat(l.Images, l.Standalone()) {
		if signatures.IsSignature(img.Name) || len(names) > 0 && !wanted[img.Name] {
			continue
		}
		delete(wanted, img.Name)
		digests := []string{img.Descriptor.Digest.String()}
		manifest, _, err := l.Manifest(img.Descriptor, runtime.GOOS, runtime.GOARCH)
		if err != nil {
			out = append(out, verify.Verdict{Image: img.Name, Digest: digests[0], Reason: err.Error()})
			continue
		}
		if manifest.Digest != img.Descriptor.Digest {
			digests = append(digests, manifest.Digest.String())
		}
		out = append(out, verify.Judge(p, verify.Image{Name: img.Name, Digests: digests}, attached.Get))
	}
	for n := range wanted {
		return nil, fmt.Errorf("%s has no image %s", dir, n)
	}
	return out, nil
}

func printVerdicts(w io.Writer, s style, verdicts []verify.Verdict) error {
	for _, v := range verdicts {
		answer := s.good("may run")
		if !v.Allowed {
			answer = s.bad("denied")
		}
		fmt.Fprintf(w, "%s: %s\n", v.Image, answer)
		for _, r := range v.Rules {
			for _, a := range r.Authorities {
				fmt.Fprintf(w, "  policy %s, authority %s: %s\n", r.Rule, a.Authority, authorityText(a))
			}
		}
		if len(v.Rules) == 0 && v.Reason != "" {
			fmt.Fprintf(w, "  %s\n", v.Reason)
		}
	}
	return nil
}

func authorityText(a verify.AuthorityVerdict) string {
	switch {
	case a.Passed && a.Static:
		return "passes whatever signatures there are"
	case a.Passed:
		return fmt.Sprintf("signed by %s (%s)", a.Signer, a.Digest)
	}
	return a.Reason
}

func deniedAmong(verdicts []verify.Verdict) error {
	var names []string
	for _, v := range verdicts {
		if !v.Allowed {
			names = append(names, v.Image)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("denied: %s", strings.Join(names, ", "))
	}
	return nil
}
