package cli

import (
	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
)

func newAgent() *cobra.Command {
	return &cobra.Command{
		Use:     "agent",
		Short:   "Run the agent of a node (started by process 1)",
		GroupID: "node",
		Long: `Run the agent of a node. It is started, and started again, by process 1 of the
node (bothy-init) and reads what that has left in /run/bothy/environment.json and
/var/lib/bothy/boot.yaml. Ending it stops neither Kubernetes nor any container.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return agent.Run(cmd.Context()) },
	}
}

func newKube() *cobra.Command {
	return &cobra.Command{
		Use:    "kube",
		Short:  "Run the control plane, the kubelet and containerd (started by the agent)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return agent.RunKube(cmd.Context()) },
	}
}
