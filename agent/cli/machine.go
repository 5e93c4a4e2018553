package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/identity"
)

func newMachine(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "machine", Short: "Show who a machine is, what enrols it, and what it is set to", GroupID: "node"}
	cmd.AddCommand(newMachineIdentity(o), newMachineManifest(o), newMachineSettings(o))
	return cmd
}

// openIdentity reads the machine's identity, or makes it ahead of its first boot.
func (o *options) openIdentity() (*identity.Identity, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("not root: the machine's identity is readable for root only; run this command with sudo")
	}
	return identity.Open(o.state)
}

func newMachineIdentity(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "identity",
		Short: "Print the fingerprint of the machine's identity key",
		Long: `Print the fingerprint of the machine's identity key, which is made in the state
directory if there is none. In a signed Machine object, as spec.identity, it is what
makes the machine part of a cluster.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := o.openIdentity()
			if err != nil {
				return err
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), map[string]string{"identity": id.Fingerprint()})
			}
			fmt.Fprintln(cmd.OutOrStdout(), id.Fingerprint())
			return nil
		},
	}
}

func newMachineManifest(o *options) *cobra.Command {
	var name, role string
	var addresses []string
	cmd := &cobra.Command{
		Use:   "manifest",
		Short: "Print the Machine object that enrols the machine",
		Long: `Print the Machine object that enrols the machine: put it into the site's directory
machines/ as <name>.yaml, sign, and push.`,
		Example: "  bothy machine manifest --name shelf-3 --address 192.0.2.13 >clusters/default/machines/shelf-3.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := o.openIdentity()
			if err != nil {
				return err
			}
			m := agent.Manifest(name, role, id.Fingerprint(), addresses)
			for _, problem := range m.Validate() {
				return problem
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), m)
			}
			data, err := yaml.Marshal(m)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
	host, _ := os.Hostname() // then --name has to be given
	fl := cmd.Flags()
	fl.StringVar(&name, "name", host, "`name` of the node")
	fl.StringVar(&role, "role", v1alpha1.RoleWorker, "`role`: worker or control-plane")
	fl.StringSliceVar(&addresses, "address", nil, "IP `address` by which other nodes reach the machine (repeatable)")
	return cmd
}
