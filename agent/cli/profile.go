package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// newProfile is for those who look for where time or memory goes, on a site
// where no debugger is.
func newProfile(o *options) *cobra.Command {
	var over time.Duration
	var file string
	cmd := &cobra.Command{
		Use:     "profile agent|kube KIND",
		Short:   "Take a profile of one of the node's processes",
		GroupID: "look",
		Long: `Take a profile of one of the node's two large processes and write it to a file that
` + "`go tool pprof`" + ` (for trace: ` + "`go tool trace`" + `) reads. KIND is cpu or trace, over
the time of --seconds, or what the runtime knows now: heap, allocs, goroutine, mutex, block,
threadcreate.

A profile names functions, and no data of the cluster.`,
		Example: "  bothy profile kube cpu --seconds 30s\n  bothy profile agent heap -f heap.pprof && go tool pprof -top heap.pprof",
		Args:    cobra.ExactArgs(2),
		ValidArgs: []string{
			"agent\tthe agent: repository, dataplane, this node",
			"kube\tthe control plane, kubelet and containerd",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.connect()
			if err != nil {
				return err
			}
			if args[1] == "cpu" || args[1] == "trace" {
				fmt.Fprintf(cmd.ErrOrStderr(), "profiling %s for %s\n", args[0], over)
			}
			body, err := client.Profile(cmd.Context(), args[0], args[1], over)
			if err != nil {
				return err
			}
			defer body.Close()
			if file == "" {
				file = fmt.Sprintf("%s-%s.pprof", args[0], args[1])
			}
			return writeTo(file, body, cmd.OutOrStdout())
		},
	}
	cmd.Flags().DurationVar(&over, "seconds", 10*time.Second, "how long to look, for cpu and trace")
	cmd.Flags().StringVarP(&file, "file", "f", "", "the file to write; - for the standard output (default PROCESS-KIND.pprof)")
	return cmd
}

// writeTo writes content to a file and says which.
func writeTo(file string, content io.Reader, out io.Writer) error {
	if file == "-" {
		_, err := io.Copy(out, content)
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, file)
	return err
}
