package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/images/build"
)

func newImageSign(o *options) *cobra.Command {
	var key string
	var names []string
	cmd := &cobra.Command{
		Use:   "sign LAYOUT --key FILE",
		Short: "Sign the images of an OCI layout directory with a key",
		Long: `Sign images where they are: in the OCI layout directory that bothy image build has
written, or any other, without a registry. The signatures lie beside the images, in
the form of cosign, and go wherever the layout goes: into bundles, nodes, and
registries, where cosign verify finds them.

The key is a private key in PEM, of ECDSA, Ed25519 or RSA, as openssl makes it, or one
of cosign generate-key-pair, whose password is taken from COSIGN_PASSWORD. An image that the key
has signed is left as it is. Nothing is written to a transparency log.`,
		Example: `  cosign generate-key-pair
  bothy image sign build/images --key cosign.key
  bothy image sign build/images --key cosign.key --image bothy.local/pause:1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signer, err := build.ReadKey(key, func() ([]byte, error) {
				password, set := os.LookupEnv("COSIGN_PASSWORD")
				if !set {
					return nil, build.ErrNoPassword
				}
				return []byte(password), nil
			})
			if err != nil {
				return err
			}
			signed, err := build.Sign(args[0], signer, names)
			if err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), signed)
			}
			rows := [][]string{{"IMAGE", "DIGEST", "SIGNED"}}
			for _, s := range signed {
				when := "now"
				if !s.New {
					when = "before"
				}
				rows = append(rows, []string{s.Name, s.Digest[:19], when})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&key, "key", "", "`file` with the private key")
	fl.StringArrayVar(&names, "image", nil, "`name` of an image to sign (repeatable; default all)")
	_ = cmd.MarkFlagRequired("key") // fails only for flags that do not exist
	return cmd
}
