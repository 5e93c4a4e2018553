package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/apply"
)

// healthy is a control plane on which everything is as it should be.
func healthy() *Status {
	read := time.Now()
	return &Status{
		Node:       NodeStatus{Ready: true},
		Components: []ComponentStatus{{Status: supervise.Status{Name: "kube-apiserver", State: supervise.Ready}}},
		Pods:       PodCounts{Known: true, Total: 2, Ready: 2},
		Git: reconciler.Status{
			Phase: reconciler.PhaseReady, Source: reconciler.Source{LastFetch: &read},
			Accepted: &reconciler.AcceptedStatus{Commit: "a"}, Applied: &reconciler.AppliedStatus{Commit: "a"},
		},
	}
}

func failure(name string) *apply.Failure {
	return &apply.Failure{ID: apply.ID{Kind: "Deployment", Namespace: "site", Name: name}, Problem: "is broken"}
}

func TestWorse(t *testing.T) {
	all := osBaseline{API: true, Node: true, Applied: true, Git: true, Unhealthy: []string{failure("sick").ID.String()}, Pods: []string{"site/a"}}
	for name, c := range map[string]struct {
		change func(*Status)
		pods   []string
		want   string
	}{
		"as before":         {func(*Status) {}, nil, ""},
		"API":               {func(s *Status) { s.Components[0].State = supervise.Starting }, nil, "the API"},
		"no API":            {func(s *Status) { s.Components = nil }, nil, "the API"},
		"node":              {func(s *Status) { s.Node.Ready, s.Node.Reason = false, "no network" }, nil, "no network"},
		"not read":          {func(s *Status) { s.Git.Source.LastFetch = nil }, nil, "not read yet"},
		"unreachable":       {func(s *Status) { s.Git.Source.LastFetch, s.Git.Source.LastError = nil, "no route" }, nil, "no route"},
		"not applied":       {func(s *Status) { s.Git.Applied = nil }, nil, "not applied"},
		"stale pods":        {func(s *Status) { s.Pods.Stale = 1 }, nil, "not come back"},
		"pods not known":    {func(s *Status) { s.Pods.Known = false }, nil, "not known"},
		"pods not ready":    {func(*Status) {}, []string{"site/a"}, "site/a"},
		"another object":    {func(s *Status) { s.Git.Objects.Pending = []*apply.Failure{failure("new")} }, nil, "new"},
		"the same object":   {func(s *Status) { s.Git.Objects.Failed = []*apply.Failure{failure("sick")} }, nil, ""},
		"worker, as others": {func(s *Status) { s.Components, s.Git.Phase = nil, reconciler.PhaseFollowing }, nil, ""},
	} {
		st := healthy()
		c.change(st)
		if got := all.worse(st, c.pods); got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q", name, got)
		}
	}
	// What did not work before need not work.
	broken := healthy()
	broken.Node.Ready, broken.Components, broken.Git.Source.LastFetch, broken.Git.Applied, broken.Pods.Known = false, nil, nil, nil, false
	broken.Git.Objects.Failed = []*apply.Failure{failure("sick")}
	if got := (osBaseline{}).worse(broken, nil); got != "" {
		t.Errorf("worse than nothing: %s", got)
	}
}

func TestRestless(t *testing.T) {
	if why := healthy().restless(); why != "" {
		t.Error(why)
	}
	for name, change := range map[string]func(*Status){
		"applying": func(s *Status) { s.Git.Phase = reconciler.PhaseApplying },
		"waiting":  func(s *Status) { s.Git.Phase = reconciler.PhaseWaitReady },
		"stale":    func(s *Status) { s.Pods.Stale = 1 },
		"unknown":  func(s *Status) { s.Pods.Known = false },
		"older":    func(s *Status) { s.Git.Applied.Commit = "b" },
	} {
		st := healthy()
		change(st)
		if st.restless() == "" {
			t.Errorf("%s: the machine is at rest", name)
		}
	}
}
