package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/images/store"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/sandbox"
)

// firstFetchLimit is how long the very first fetch may fail before `bothy up`
// gives up: there is nothing the node could run instead.
const firstFetchLimit = 10 * time.Second

type upFlags struct {
	name, config                                     string
	repo, branch, path, trustRoot, credentials, keys string
	trustNone, noWait, isolated                      bool
	interval, timeout                                time.Duration
	images                                           []string
	bundle                                           string
	nodes                                            int
	enrolIn                                          string
}

func newUp(o *options) *cobra.Command {
	f := &upFlags{}
	cmd := &cobra.Command{
		Use:     "up",
		Short:   "Start a node on this machine from a signed Git repository",
		GroupID: "node",
		Long: `Start a node on this machine and wait until it serves what the repository says.

The node lives in namespaces and a cgroup of its own: it takes no port of this
machine, changes no mount, and is reached at an address of its own. Everything
it keeps is in the state directory. The repository and the trust root are
remembered there, so that a later ` + "`bothy up`" + ` needs only --state.

With --nodes N, N nodes come up that share one link: the first is the control plane,
the others join it as workers. A machine joins by its Machine object in the repository:
with --enrol-in DIR these are committed and pushed for you, otherwise the command
prints them and waits until they are there.

What has no flag (several sources, an endpoint that the site can be pushed to) is
said in a boot configuration, --config FILE.

With --bundle the node starts from a bundle (see ` + "`bothy bundle`" + `): its images and its
repository are taken in first, and no network is needed.

Exit status 0 means: the node is Ready, the newest acceptable commit is applied
and its workloads are healthy.`,
		Example: `  bothy up --repo https://git.example.org/site.git --path clusters/default --trust-root root.yaml
  bothy up --config boot.yaml
  bothy up --nodes 3 --repo file:///srv/site.git --trust-root site/trust/root.yaml --enrol-in site
  bothy up --state /var/lib/bothy`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd, o, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "`name` of the node (default \"bothy\")")
	fl.StringVar(&f.config, "config", "", "boot configuration `file`, in place of the flags about the repository and trust")
	fl.StringVar(&f.repo, "repo", "", "`URL` of the repository: https://, ssh://, file:// or a path")
	fl.StringVar(&f.branch, "branch", "main", "`branch` to follow")
	fl.StringVar(&f.path, "path", "clusters/default", "`directory` of the site in the repository")
	fl.DurationVar(&f.interval, "interval", 30*time.Second, "time between polls of the repository")
	fl.StringVar(&f.credentials, "credentials", "", "`file` with credentials for the repository")
	fl.StringVar(&f.keys, "decryption-keys", "", "`directory` of SOPS keys that open what the site's directory holds encrypted")
	fl.StringVar(&f.trustRoot, "trust-root", "", "`file` with the trust root the first commit has to chain to")
	fl.BoolVar(&f.trustNone, "trust-none", false, "accept commits that nobody signed")
	fl.StringVar(&f.bundle, "bundle", "", "`bundle` to take images and, without --repo, the repository from: a tar file, a directory, or a volume with bundles")
	fl.StringSliceVar(&f.images, "images", nil, "OCI layout `directory` to import images from (repeatable)")
	fl.BoolVar(&f.isolated, "isolated", false, "give the node no way to other networks")
	fl.IntVar(&f.nodes, "nodes", 0, "`number` of nodes: a control plane and workers on one link (default 1, or as many as there were)")
	fl.StringVar(&f.enrolIn, "enrol-in", "", "work tree of the repository: Machine objects of the nodes that are not in it are committed and pushed from this `directory`")
	fl.BoolVar(&f.noWait, "no-wait", false, "return as soon as the node has started")
	fl.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait for the workloads")
	cmd.MarkFlagsMutuallyExclusive("trust-root", "trust-none")
	for _, name := range []string{"repo", "branch", "path", "interval", "credentials", "decryption-keys", "trust-root", "trust-none"} {
		cmd.MarkFlagsMutuallyExclusive("config", name)
	}
	return cmd
}

func runUp(cmd *cobra.Command, o *options, f *upFlags) error {
	if os.Geteuid() != 0 {
		return errors.New("not root: a node needs namespaces, mounts and BPF; run this command with sudo")
	}
	spec, err := f.spec(o.state)
	if err != nil {
		return err
	}
	if f.bundle != "" {
		meter := newMeter(os.Stderr)
		_, err := storeOf(o.state).Import(cmd.Context(), f.bundle, cmd.InOrStdin(), func(n int64) { meter.show(n, f.bundle) })
		meter.end()
		if err != nil {
			return fmt.Errorf("--bundle: %w", err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), f.timeout, fmt.Errorf("not ready after %s", f.timeout))
	defer cancel()
	fleet, err := f.fleet(spec)
	if err != nil {
		return err
	}
	if fleet != nil {
		return fleet.up(ctx, cmd, o, f)
	}
	started := time.Now()
	n, err := sandbox.Start(ctx, *spec)
	if err != nil {
		return err
	}
	if f.noWait {
		if o.json() {
			return printJSON(cmd.OutOrStdout(), upResult{Node: n.Name, NodeIP: n.Network.NodeAddress, Took: time.Since(started).Seconds()})
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "node %s has started; see `bothy status --state %s`\n", n.Name, o.state)
		return nil
	}
	w := &upWait{node: n, client: agent.NewClient(n.Path(boot.AgentSocket)), progress: newProgress(os.Stderr, started)}
	st, err := w.wait(ctx)
	w.progress.close()
	if err != nil {
		return w.giveUp(cmd.Context(), st, err)
	}
	return o.summarise(cmd, n, w.client, st, time.Since(started))
}

// spec checks the flags; problems show before anything has been touched.
func (f *upFlags) spec(state string) (*sandbox.Spec, error) {
	dir, err := filepath.Abs(state)
	if err != nil {
		return nil, err
	}
	bin, err := binDir()
	if err != nil {
		return nil, err
	}
	spec := &sandbox.Spec{Name: f.name, StateDir: dir, BinDir: bin, Isolated: f.isolated}
	for _, layout := range f.images {
		abs, err := filepath.Abs(layout)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(abs, "index.json")); err != nil {
			return nil, fmt.Errorf("--images %s is not an OCI layout: it has no index.json; make one with `bothy image build`", layout)
		}
		spec.ImageLayouts = append(spec.ImageLayouts, abs)
	}
	kept, err := keptNode(dir)
	if err != nil {
		return nil, err
	}
	if spec.Name == "" {
		spec.Name = "bothy"
		if kept != nil {
			spec.Name = kept.Name
		}
	}
	if f.config != "" {
		spec.BootConfig, err = f.givenConfig(spec.Name)
		return spec, err
	}
	_, err = os.Stat(filepath.Join(dir, "boot.yaml"))
	fresh := err != nil
	if f.repo == "" && f.bundle != "" && fresh {
		f.repo = "bundle://" + store.New(filepath.Join(boot.StateDir, "images"), "").GitDir()
	}
	if f.repo == "" {
		if fresh {
			return nil, fmt.Errorf("no repository: %s has no node yet, so say which repository it runs, with --repo URL and --trust-root FILE (`bothy repo init` makes one)", state)
		}
		return spec, nil
	}
	spec.BootConfig, err = f.bootConfig(spec.Name, kept)
	return spec, err
}

func keptNode(dir string) (*sandbox.Node, error) {
	n, err := sandbox.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return n, err
}

// givenConfig reads the boot configuration that --config names.
func (f *upFlags) givenConfig(name string) ([]byte, error) {
	data, err := os.ReadFile(f.config)
	if err != nil {
		return nil, fmt.Errorf("read the boot configuration: %w", err)
	}
	b, err := v1alpha1.DecodeBootConfig(f.config, data)
	if err != nil {
		return nil, err
	}
	if b.MachineName == "" {
		b.MachineName = name
	}
	return yaml.Marshal(b)
}

func (f *upFlags) bootConfig(name string, kept *sandbox.Node) ([]byte, error) {
	b := v1alpha1.BootConfig{
		TypeMeta:    v1alpha1.TypeMeta{APIVersion: v1alpha1.GroupVersion, Kind: "BootConfig"},
		MachineName: name,
		Repository: v1alpha1.RepositorySpec{
			URL: f.repo, Branch: f.branch, Path: f.path,
			Interval: v1alpha1.Duration{Duration: f.interval}, CredentialsFile: f.credentials,
		},
		Trust: v1alpha1.BootTrust{None: f.trustNone},
	}
	if f.keys != "" {
		keys, err := filepath.Abs(f.keys)
		if err != nil {
			return nil, err
		}
		b.Decryption.KeysDirectory = keys
	}
	if f.trustRoot != "" {
		data, err := os.ReadFile(f.trustRoot)
		if err != nil {
			return nil, fmt.Errorf("read the trust root: %w", err)
		}
		if b.Trust.Root, err = v1alpha1.DecodeTrustRoot(f.trustRoot, data); err != nil {
			return nil, err
		}
	}
	if b.Trust.Root == nil && !b.Trust.None {
		return nil, errors.New("no trust root: say who may sign with --trust-root FILE (trust/root.yaml of the repository, from somebody you trust), or accept unsigned commits with --trust-none")
	}
	b.Default()
	for _, e := range b.Validate() {
		return nil, e
	}
	return yaml.Marshal(b)
}

// upWait follows a node until it serves.
type upWait struct {
	node     *sandbox.Node
	client   *agent.Client
	progress *progress
	last     *agent.Status
	// held is told that the repository does not let the node take part; nil for nobody.
	held func()
	// fetchFailing is since when the first fetch has failed.
	fetchFailing time.Time
}

// wait returns the status of a node that is Ready with its workloads, or an
// error once it is clear that it never will be.
func (w *upWait) wait(ctx context.Context) (*agent.Status, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var hopeless error
	for ctx.Err() == nil {
		done := false
		_ = w.client.Follow(ctx, func(st *agent.Status) bool {
			w.last = st
			w.progress.show(st)
			if st.Node.Held && w.held != nil {
				w.held()
			}
			hopeless = w.hopeless(st)
			done = st.Serving()
			return !done && hopeless == nil
		})
		if done {
			w.settle(ctx)
		}
		if done || hopeless != nil {
			return w.last, hopeless
		}
		if !w.node.Running() {
			return w.last, errors.New("the node ended by itself; see `bothy logs`")
		}
		select {
		case <-tick.C: // the agent is not there yet, or was started again
		case <-ctx.Done():
		}
	}
	return w.last, context.Cause(ctx)
}

// settleLimit is how long a node that serves may take for the components that
// no workload waits for.
const settleLimit = 10 * time.Second

// settle waits for those components, so that whatever an operator asks for next
// is there. The node serves without them: one that is late is not an error.
func (w *upWait) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	_ = w.client.Follow(ctx, func(st *agent.Status) bool {
		w.last = st
		w.progress.show(st)
		return len(st.Starting()) > 0
	})
}

// hopeless returns why waiting longer would be of no use: there is no accepted
// commit, and none to be had.
func (w *upWait) hopeless(st *agent.Status) error {
	if st.Git.Accepted != nil {
		return nil
	}
	if r := st.Git.Rejected; r != nil {
		return fmt.Errorf("commit %s was refused by rule %q: %s\n  %s", short(r.Commit), r.Rule, r.Problem, r.Remedy)
	}
	if st.Git.Source.LastError == "" {
		w.fetchFailing = time.Time{}
		return nil
	}
	if w.fetchFailing.IsZero() {
		w.fetchFailing = time.Now()
	}
	if time.Since(w.fetchFailing) > firstFetchLimit {
		return fmt.Errorf("the repository cannot be read, and this node has never seen it: %s", st.Git.Source.LastError)
	}
	return nil
}

// giveUp stops a node that has nothing to run. One that has an accepted commit
// is left running: it goes on trying, and an operator can look at it.
func (w *upWait) giveUp(ctx context.Context, st *agent.Status, cause error) error {
	interrupted := ctx.Err() != nil
	usable := st != nil && st.Git.Accepted != nil && st.Node.Ready
	if usable && !interrupted {
		why := strings.Join(st.Blockers(), "\n  ")
		return fmt.Errorf("%w; the node is left running:\n  %s", cause, why)
	}
	fmt.Fprintln(os.Stderr, "stopping the node")
	if err := w.node.Stop(context.WithoutCancel(ctx)); err != nil {
		return errors.Join(cause, err)
	}
	if interrupted {
		return errors.New("interrupted, the node is stopped")
	}
	if st != nil {
		if why := st.Blockers(); len(why) > 0 {
			return fmt.Errorf("%w\n  %s", cause, strings.Join(why, "\n  "))
		}
	}
	return cause
}

// upResult is what `bothy up -o json` prints.
type upResult struct {
	Node       string             `json:"node"`
	NodeIP     string             `json:"nodeIP"`
	Kubeconfig string             `json:"kubeconfig,omitempty"`
	Commit     string             `json:"commit,omitempty"`
	Signer     string             `json:"signer,omitempty"`
	URLs       []string           `json:"urls,omitempty"`
	Took       float64            `json:"took"`
	Milestones map[string]float64 `json:"milestones,omitempty"`
	// Nodes are the further nodes.
	Nodes []upNode `json:"nodes,omitempty"`
}

// upNode is a worker in upResult.
type upNode struct {
	Node   string `json:"node"`
	NodeIP string `json:"nodeIP"`
	// Took is seconds until it was Ready.
	Took float64 `json:"took"`
}

func (o *options) summarise(cmd *cobra.Command, n *sandbox.Node, c *agent.Client, st *agent.Status, took time.Duration, others ...upNode) error {
	kubeconfig, err := o.writeKubeconfig(cmd.Context(), c)
	if err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	urls := answering(cmd.Context(), st.URLs)
	r := upResult{
		Node: n.Name, NodeIP: st.Node.IP, Kubeconfig: kubeconfig, Commit: st.Git.Accepted.Commit,
		Signer: st.Git.Accepted.Signer, URLs: urls, Took: took.Seconds(), Milestones: st.Milestones, Nodes: others,
	}
	out := cmd.OutOrStdout()
	if o.json() {
		return printJSON(out, r)
	}
	s := styleFor(os.Stdout)
	commit := fmt.Sprintf("%s %q, %s", short(r.Commit), st.Git.Accepted.Subject, signedBy(s, st))
	answers := strings.Join(urls, "\n")
	if answers == "" {
		answers = "no Service of type NodePort answers over HTTP"
	}
	state := ""
	if o.state != defaultState {
		state = " --state " + o.state
	}
	fields(out, s, "node", fmt.Sprintf("%s is %s at %s, Kubernetes %s, after %s", n.Name, s.good("Ready"), r.NodeIP, st.Node.Version.Kubernetes, seconds(took)))
	for _, other := range others {
		fields(out, s, "worker", fmt.Sprintf("%s is %s at %s", other.Node, s.good("Ready"), other.NodeIP))
	}
	fields(out, s,
		"commit", commit,
		"answers", answers,
		"kubectl", "export KUBECONFIG="+kubeconfig,
		"change", fmt.Sprintf("edit, git commit -S, git push to %s;\nit is picked up at the next poll, or at once by `bothy reconcile%s`", st.Git.Source.URL, state),
		"stop", "bothy down"+state,
	)
	return nil
}

func signedBy(s style, st *agent.Status) string {
	if st.Node.TrustNone {
		return s.bad("accepted without a signature (trust: none)")
	}
	a := st.Git.Accepted
	return fmt.Sprintf("signed by %s (%s %s)", s.good(a.Signer), a.Kind, a.Fingerprint)
}

// answerLimit is how long a healthy workload's address may take to answer.
const answerLimit = 3 * time.Second

// answering returns the URLs that answer over HTTP. It asks again for a moment
// while none does: a pod is ready before its Service knows.
func answering(ctx context.Context, urls []string) []string {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	out := []string{}
	for deadline := time.Now().Add(answerLimit); len(out) == 0 && len(urls) > 0 && time.Now().Before(deadline); {
		for _, u := range urls {
			if answers(ctx, client, u) {
				out = append(out, u)
			}
		}
		if len(out) == 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	return out
}

func answers(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode < 500
}
