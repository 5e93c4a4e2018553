package chaos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

const (
	// keepers are ConfigMaps that every commit wants; each commit changes one.
	keepers = 10
	// lifetime is how many commits want the ConfigMap that a commit brings.
	lifetime = 5

	siteFile = "clusters/default/rounds.yaml"
	selector = "chaos=round"
)

// site is a node, its repository, and the account of what was pushed.
type site struct {
	repo *cluster.Repo
	node *cluster.Node
	kube *cluster.Kubectl

	mu sync.Mutex
	// pushed are all commits in order; round i is the i-th.
	pushed []string
	// accepted is the newest round that was seen to be accepted.
	accepted int
}

// newSite starts a node for the URL and further arguments that source gives for
// the repository; nil for the repository's own file URL. Each prepare is called
// with the node before it starts.
func newSite(t *testing.T, source func(*cluster.Repo) []string, prepare ...func(*cluster.Node)) *site {
	t.Helper()
	s := &site{repo: cluster.NewRepo(t, false, map[string]string{
		"clusters/default/kustomization.yaml": "resources:\n  - site.yaml\n  - rounds.yaml\n",
		siteFile:                              manifest(0),
	})}
	s.pushed = []string{s.repo.Head(t)}
	s.node = cluster.NodeFor(t, s.repo)
	if source != nil {
		s.node.Args = append(source(s.repo), "--path", s.repo.Path, "--trust-root", s.repo.TrustRoot())
	}
	s.node.Args = append(s.node.Args, "--interval", interval.String())
	for _, do := range prepare {
		do(s.node)
	}
	s.node.Up(t)
	s.kube = s.node.Kubectl(t).In("site")
	return s
}

// wanted is what the commit of a round wants: name and content of ConfigMaps.
func wanted(round int) map[string]int {
	out := map[string]int{}
	for i := range keepers {
		// The newest round up to this one whose turn it was.
		out["keep-"+strconv.Itoa(i)] = max(0, round-(round-i+keepers)%keepers)
	}
	for i := max(0, round-lifetime+1); i <= round; i++ {
		out["round-"+strconv.Itoa(i)] = i
	}
	return out
}

func manifest(round int) string {
	var b strings.Builder
	for name, content := range wanted(round) {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: site, labels: {chaos: round}}\ndata: {round: %q}\n", name, strconv.Itoa(content))
	}
	return b.String()
}

// push pushes the commit of the next round and returns the round.
func (s *site) push(t *testing.T) int {
	t.Helper()
	s.mu.Lock()
	round := len(s.pushed)
	s.mu.Unlock()
	s.repo.Write(t, siteFile, manifest(round))
	s.repo.Git(t, "add", "--all")
	s.repo.Git(t, "commit", "--quiet", "--gpg-sign", "-m", fmt.Sprintf("Round %d", round))
	// The commit counts from the moment before the server has it.
	s.mu.Lock()
	s.pushed = append(s.pushed, s.repo.Head(t))
	s.mu.Unlock()
	s.repo.Git(t, "push", "--quiet", "origin", "HEAD:main")
	return round
}

// newest is the newest round that may have been pushed.
func (s *site) newest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pushed) - 1
}

// roundOf is the round of a commit, -1 for one that was never pushed.
func (s *site) roundOf(commit string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.pushed) - 1; i >= 0; i-- {
		if s.pushed[i] == commit {
			return i
		}
	}
	return -1
}

// status asks the agent. What it says was accepted must be one of the pushed
// commits and never older than what it said before; anything else is a wrong
// that no later answer can right.
func (s *site) status(ctx context.Context) (*cluster.Status, error) {
	st, err := s.node.ReadStatus(ctx)
	if err != nil {
		return nil, err
	}
	if st.Git.Accepted == nil {
		return nil, errors.New("no commit is accepted yet")
	}
	round := s.roundOf(st.Git.Accepted.Commit)
	switch {
	case round < 0:
		return nil, fatal{fmt.Errorf("commit %s is accepted, which was never pushed", st.Git.Accepted.Commit)}
	case round < s.accepted:
		return nil, fatal{fmt.Errorf("round %d is accepted, but round %d was before", round, s.accepted)}
	case st.Git.Rejected != nil:
		return nil, fatal{fmt.Errorf("a good commit is refused: %+v", st.Git.Rejected)}
	}
	s.accepted = round
	return st, nil
}

var (
	errStill = errors.New("it still says that the server is not well")
	errQuiet = errors.New("it says nothing of an unreachable server")
)

// fatal is an error that waiting does not mend.
type fatal struct{ error }

// arrives waits until the node has accepted and applied the newest commit and
// the cluster has exactly what it wants.
func (s *site) arrives(t *testing.T) {
	t.Helper()
	newest := s.newest()
	cluster.Eventually(t, patience, fmt.Sprintf("round %d to be applied", newest), func() error {
		st, err := s.status(t.Context())
		if errors.As(err, &fatal{}) {
			t.Fatal(err)
		}
		if err != nil {
			return err
		}
		g := st.Git
		if s.accepted != newest || g.Applied == nil || g.Applied.Commit != g.Accepted.Commit {
			return fmt.Errorf("accepted is round %d, applied %+v, phase %s, %s, source: %s", s.accepted, g.Applied, g.Phase, g.Message, g.Source.LastError)
		}
		return s.has(t.Context(), newest)
	})
}

// has returns nil if the cluster has exactly what a round wants.
func (s *site) has(ctx context.Context, round int) error {
	var list struct {
		Items []configMap `json:"items"`
	}
	if err := s.kube.JSON(ctx, &list, "configmaps", "-l", selector); err != nil {
		return err
	}
	want := wanted(round)
	for _, c := range list.Items {
		content, ok := want[c.Metadata.Name]
		switch {
		case !ok && c.Metadata.DeletionTimestamp == nil:
			return fmt.Errorf("ConfigMap %s is still there", c.Metadata.Name)
		case ok && c.Data.Round != strconv.Itoa(content):
			return fmt.Errorf("ConfigMap %s is of round %s, want %d", c.Metadata.Name, c.Data.Round, content)
		}
		delete(want, c.Metadata.Name)
	}
	if len(want) > 0 {
		return fmt.Errorf("missing are %v", want)
	}
	return nil
}

type configMap struct {
	Metadata struct {
		Name              string  `json:"name"`
		DeletionTimestamp *string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Data struct {
		Round string `json:"round"`
	} `json:"data"`
}

// announce tells the agent about a push, as a webhook does; it may be dead.
func (s *site) announce(t *testing.T) (wait func()) {
	t.Helper()
	cmd := s.node.Command(t.Context(), "reconcile", "--wait=false")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() { _ = cmd.Wait() } // a dead agent cannot be told
}
