package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// defaultState is where a node lives when nobody says otherwise.
const defaultState = "/var/lib/bothy"

// options are the flags that all commands share.
type options struct {
	state  string
	node   string
	output string
}

func (o *options) json() bool { return o.output == "json" }

// exitError carries an exit status for an error that was already shown.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// Main runs the command line and returns the exit status.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newRoot().ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bothy: interrupted")
		return 130
	}
	fmt.Fprintln(os.Stderr, "bothy:", err)
	return 1
}

func newRoot() *cobra.Command {
	// cobra adds this process-wide set to every command, and packages of
	// Kubernetes put a --version of their own into it.
	pflag.CommandLine = pflag.NewFlagSet("bothy", pflag.ContinueOnError)
	o := &options{}
	root := &cobra.Command{
		Use:   "bothy",
		Short: "Turn a machine and a signed Git repository into a Kubernetes cluster, and keep it that way",
		Long: `bothy turns a machine and a signed Git repository into a Kubernetes cluster.

One agent bootstraps etcd and the upstream control plane, runs containerd and
the kubelet, carries packets on its own eBPF dataplane, and applies what the
repository says, after checking who signed it.

  bothy repo init   makes such a repository
  bothy up          starts a node from it on this machine
  bothy status      shows what the node runs, and which commit, signed by whom
  bothy down        stops it and leaves nothing behind`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	state := os.Getenv("BOTHY_STATE")
	if state == "" {
		state = defaultState
	}
	root.PersistentFlags().StringVar(&o.state, "state", state, "state `directory` of the node (or BOTHY_STATE)")
	root.PersistentFlags().StringVar(&o.node, "node", "", "`name` of one of several nodes on the state directory (default: the first)")
	root.PersistentFlags().StringVarP(&o.output, "output", "o", "text", "output `format`: text or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if o.output != "text" && o.output != "json" {
			return fmt.Errorf("-o %s is not known: use text or json", o.output)
		}
		return o.choose()
	}
	root.AddGroup(
		&cobra.Group{ID: "node", Title: "Nodes:"},
		&cobra.Group{ID: "look", Title: "Looking:"},
		&cobra.Group{ID: "repo", Title: "Repositories and images:"},
	)
	root.AddCommand(
		newUp(o), newDown(o), newReset(o), newMachine(o),
		newStatus(o), newHistory(o), newDiff(o), newEvents(o), newLogs(o), newFlows(o), newNet(o), newProfile(o), newReconcile(o), newKubeconfig(o),
		newRepo(o), newVerify(o, settingsCheck, buildCheck), newTrust(o), newBundle(o), newImage(o), newOS(o),
		newVersion(o), newMan(), newAgent(), newKube(),
	)
	return root
}
