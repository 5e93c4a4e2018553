package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/identity"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/sandbox"
	"github.com/bothy-os/bothy/reconciler/repository"
)

// fleet is several nodes that come up together: the first is the control plane.
type fleet struct {
	// first is the boot configuration of the first node.
	first *v1alpha1.BootConfig
	specs []*sandbox.Spec
	nodes []*sandbox.Node
	// objects are the Machines that enrol them.
	objects []*v1alpha1.Machine
	// adopted is how many ran already.
	adopted int
}

// fleet returns nil for a node that is alone.
func (f *upFlags) fleet(first *sandbox.Spec) (*fleet, error) {
	workers, err := workerStates(first.StateDir)
	if err != nil {
		return nil, err
	}
	count := f.nodes
	if count == 0 {
		count = 1 + len(workers)
	}
	switch {
	case count < 1 || count > sandbox.MaxSegment:
		return nil, fmt.Errorf("--nodes %d: give a number from 1 to %d", count, sandbox.MaxSegment)
	case count <= len(workers):
		return nil, fmt.Errorf("--nodes %d: there are %d nodes in %s; take the last down with `bothy down --node %s --purge` and remove its Machine from the repository", count, 1+len(workers), first.StateDir, filepath.Base(workers[len(workers)-1]))
	case count == 1:
		return nil, nil
	}
	fl := &fleet{specs: []*sandbox.Spec{first}}
	if fl.first, err = readBootConfig(first); err != nil {
		return nil, err
	}
	for i := 1; i < count; i++ {
		spec, err := fl.worker(first, i)
		if err != nil {
			return nil, err
		}
		fl.specs = append(fl.specs, spec)
	}
	return fl, nil
}

// readBootConfig is the configuration that a node starts with: a new one, or that of the last time.
func readBootConfig(spec *sandbox.Spec) (*v1alpha1.BootConfig, error) {
	file := filepath.Join(spec.StateDir, filepath.Base(boot.BootConfigFile))
	data := spec.BootConfig
	if data == nil {
		var err error
		if data, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("read the boot configuration: %w", err)
		}
	}
	return v1alpha1.DecodeBootConfig(file, data)
}

// worker is what the i-th node is made from: it follows the same repository, and does nothing before that enrols it.
func (fl *fleet) worker(first *sandbox.Spec, i int) (*sandbox.Spec, error) {
	name := workerName(first.Name, i)
	config := *fl.first
	config.MachineName, config.RequireEnrolment, config.Endpoint = name, true, nil
	data, err := yaml.Marshal(config)
	if err != nil {
		return nil, err
	}
	spec := *first
	spec.Name, spec.StateDir, spec.BootConfig, spec.Index = name, workerState(first.StateDir, name), data, i
	return &spec, nil
}

// up starts what does not run yet, and waits until all serve.
func (fl *fleet) up(ctx context.Context, cmd *cobra.Command, o *options, f *upFlags) error {
	started := time.Now()
	if err := fl.prepare(f.isolated); err != nil {
		return err
	}
	if f.enrolIn != "" {
		if err := fl.enrol(ctx, f.enrolIn, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	if err := fl.start(ctx); err != nil {
		return errors.Join(err, fl.stop(context.WithoutCancel(ctx)))
	}
	if f.noWait {
		if o.json() {
			return printJSON(cmd.OutOrStdout(), upResult{Node: fl.nodes[0].Name, NodeIP: fl.nodes[0].Network.NodeAddress, Took: time.Since(started).Seconds()})
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d nodes have started; see `bothy status --state %s`\n", len(fl.nodes), o.state)
		return nil
	}
	return fl.wait(ctx, cmd, o, started)
}

// prepare makes the link, and the identities ahead of the machines' first boot.
func (fl *fleet) prepare(isolated bool) error {
	first := fl.specs[0]
	if n, err := sandbox.Open(first.StateDir); err == nil && n.Running() && n.Network.Bridge == "" {
		return fmt.Errorf("node %s was started without others, on a link of its own: take it down with `bothy down` first", n.Name)
	}
	segment, err := sandbox.OpenSegment(first.StateDir, first.Name, isolated)
	if err != nil {
		return err
	}
	for i, spec := range fl.specs {
		spec.Segment = segment
		id, err := identity.Open(spec.StateDir)
		if err != nil {
			return err
		}
		addresses, err := fl.addresses(segment, i)
		if err != nil {
			return err
		}
		role := v1alpha1.RoleControlPlane
		if i > 0 {
			role = v1alpha1.RoleWorker
		}
		fl.objects = append(fl.objects, agent.Manifest(spec.Name, role, id.Fingerprint(), addresses))
	}
	return nil
}

func (fl *fleet) addresses(segment *sandbox.Segment, i int) ([]string, error) {
	v4, v6, err := segment.Addresses(i)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, a := range []netip.Addr{v4, v6} {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return out, nil
}

// manifests are the Machine objects, by their paths in the repository.
func (fl *fleet) manifests() (names []string, files map[string][]byte, err error) {
	files = map[string][]byte{}
	for _, m := range fl.objects {
		name := path.Join(fl.first.Repository.Path, "machines", m.Metadata.Name+".yaml")
		if files[name], err = yaml.Marshal(m); err != nil {
			return nil, nil, err
		}
		names = append(names, name)
	}
	return names, files, nil
}

// enrol commits the Machine objects that the repository lacks, or that are not true any more. Of one that is there, everything else
// than identity, role and addresses is left as it is.
func (fl *fleet) enrol(ctx context.Context, worktree string, out io.Writer) error {
	names, files, err := fl.manifests()
	if err != nil {
		return err
	}
	for i, name := range names {
		file := filepath.Join(worktree, filepath.FromSlash(name))
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		kept, err := v1alpha1.DecodeMachine(file, data)
		if err != nil {
			return err
		}
		want := fl.objects[i].Spec
		if kept.Spec.Identity == want.Identity && kept.Spec.Role == want.Role && slices.Equal(kept.Spec.Addresses, want.Addresses) {
			delete(files, name)
			continue
		}
		kept.Spec.Identity, kept.Spec.Role, kept.Spec.Addresses = want.Identity, want.Role, want.Addresses
		if files[name], err = yaml.Marshal(kept); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return nil
	}
	commit, err := repository.Commit(ctx, worktree, "Enrol the machines of this site", files)
	if err != nil {
		return fmt.Errorf("enrol the machines in %s: %w", worktree, err)
	}
	if commit != "" {
		fmt.Fprintf(out, "enrolled %d machines with commit %s\n", len(files), short(commit))
	}
	return nil
}

// start starts the nodes that do not run.
func (fl *fleet) start(ctx context.Context) error {
	for _, spec := range fl.specs {
		n, err := sandbox.Open(spec.StateDir)
		if err == nil && n.Running() {
			fl.adopted++
		} else if n, err = sandbox.Start(ctx, *spec); err != nil {
			return fmt.Errorf("start node %s: %w", spec.Name, err)
		}
		fl.nodes = append(fl.nodes, n)
	}
	return nil
}

// stop takes down what start has started; nodes that ran before are left alone.
func (fl *fleet) stop(ctx context.Context) error {
	if fl.adopted > 0 {
		return nil
	}
	var errs []error
	for i := len(fl.nodes) - 1; i >= 0; i-- {
		errs = append(errs, fl.nodes[i].Stop(ctx))
	}
	return errors.Join(append(errs, fl.specs[0].Segment.Remove())...)
}

// wait returns when all nodes serve.
func (fl *fleet) wait(ctx context.Context, cmd *cobra.Command, o *options, started time.Time) error {
	var first *agent.Status
	var others []upNode
	said := false
	for i, n := range fl.nodes {
		w := &upWait{node: n, client: agent.NewClient(n.Path(boot.AgentSocket)), progress: newProgress(os.Stderr, started)}
		w.held = func() {
			if !said {
				said = true
				fl.explain(cmd.ErrOrStderr())
			}
		}
		w.progress.prefix = n.Name + ": "
		st, err := w.wait(ctx)
		w.progress.close()
		if err != nil {
			return fl.giveUp(cmd.Context(), n, st, err)
		}
		if i == 0 {
			first = st
			continue
		}
		others = append(others, upNode{Node: n.Name, NodeIP: st.Node.IP, Took: time.Since(started).Seconds()})
	}
	client := agent.NewClient(fl.nodes[0].Path(boot.AgentSocket))
	return o.summarise(cmd, fl.nodes[0], client, first, time.Since(started), others...)
}

// explain says what has to be committed.
func (fl *fleet) explain(out io.Writer) {
	names, files, err := fl.manifests()
	if err != nil {
		return
	}
	fmt.Fprintln(out, "The repository does not enrol these machines yet. Commit the following files, sign and push; the nodes wait for it.")
	for _, name := range names {
		fmt.Fprintf(out, "--- %s\n%s", name, files[name])
	}
	fmt.Fprintln(out, "---")
}

// giveUp leaves nodes running that have something to run.
func (fl *fleet) giveUp(ctx context.Context, n *sandbox.Node, st *agent.Status, cause error) error {
	if st != nil {
		for _, why := range st.Blockers() {
			cause = fmt.Errorf("%w\n  %s", cause, why)
		}
	}
	cause = fmt.Errorf("node %s: %w", n.Name, cause)
	if ctx.Err() == nil && st != nil && st.Git.Accepted != nil {
		return fmt.Errorf("%w\nthe nodes are left running", cause)
	}
	fmt.Fprintln(os.Stderr, "stopping the nodes")
	return errors.Join(cause, fl.stop(context.WithoutCancel(ctx)))
}
