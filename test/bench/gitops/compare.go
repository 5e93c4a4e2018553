package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/cluster/gitserver"
)

// never is an interval that does not come to pass during the measurements.
const never = 10 * time.Hour

// comparison is one node with both sides on it.
type comparison struct {
	options options
	node    *cluster.Node
	repo    *repository
	server  *gitserver.Server
	config  *rest.Config
	client  dynamic.Interface
	sides   []*side
	peers   *peers
	report  *report
	commits int
}

func compare(ctx context.Context, o options, paths cluster.Paths, dir string, r *report) (err error) {
	c := &comparison{options: o, report: r}
	defer func() { err = errors.Join(err, c.end(context.WithoutCancel(ctx))) }()
	if err := c.begin(ctx, paths, dir); err != nil {
		return err
	}
	if o.measure("idle") { // first, while nothing was left by anything else
		if err := c.idleEmpty(ctx); err != nil {
			return err
		}
	}
	for _, n := range o.sizes {
		if err := c.compareAt(ctx, n); err != nil {
			return fmt.Errorf("with %d Kustomizations: %w", n, err)
		}
	}
	if o.measure("drift") || o.measure("idle") {
		return c.compareIdle(ctx)
	}
	return nil
}

func (c *comparison) begin(ctx context.Context, paths cluster.Paths, dir string) (err error) {
	c.repo, err = newRepository(ctx, paths, dir, map[string]string{
		"clusters/default/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- site.yaml\n",
		"clusters/default/site.yaml":          "apiVersion: v1\nkind: Namespace\nmetadata: {name: site}\n",
	})
	if err != nil {
		return err
	}
	if c.server, err = gitserver.Start(filepath.Dir(c.repo.bare)); err != nil {
		return err
	}
	credentials := filepath.Join(dir, "credentials.yaml")
	if err := os.WriteFile(credentials, []byte(c.server.Credentials("")), 0o600); err != nil {
		return err
	}
	name := filepath.Base(c.repo.bare)
	c.node = &cluster.Node{
		Paths: paths, Name: "bench", State: filepath.Join(dir, "state"),
		Args: []string{
			"--repo", c.server.URL(name), "--credentials", credentials, "--interval", never.String(),
			"--trust-root", filepath.Join(c.repo.tree, "trust", "root.yaml"),
		},
	}
	if _, err := c.node.Start(ctx, nil); err != nil {
		return err
	}
	kubectl, err := c.node.NewKubectl(ctx)
	if err != nil {
		return err
	}
	if c.config, err = clientcmd.BuildConfigFromFlags("", kubectl.Kubeconfig); err != nil {
		return err
	}
	c.config.QPS = -1 // what is measured is the other side of the API server
	if c.client, err = dynamic.NewForConfig(c.config); err != nil {
		return err
	}
	for _, resource := range []schema.GroupVersionResource{gitRepositories, kustomizations} {
		if err := poll(ctx, time.Minute, "the API server to serve "+resource.Resource, func() error {
			_, err := c.client.Resource(resource).List(ctx, metav1.ListOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	if slices.Contains(c.options.sides, ours) {
		c.sides = append(c.sides, &side{name: ours, client: c.client, source: "flux-system", pids: func() (map[int]string, error) { return nil, nil }})
	}
	if !slices.Contains(c.options.sides, flux) {
		return nil
	}
	if c.peers, err = startPeers(ctx, paths, kubectl.Kubeconfig, dir); err != nil {
		return err
	}
	c.sides = append(c.sides, &side{name: flux, client: c.client, source: shard, labels: map[string]any{shardLabel: shard}, pids: c.peers.pids})
	return peerSource(ctx, c.client, c.server.PlainURL(name))
}

func (c *comparison) end(ctx context.Context) error {
	var err error
	if c.peers != nil {
		err = c.peers.stop()
	}
	if c.node != nil {
		err = errors.Join(err, c.node.Stop(ctx, true))
	}
	if c.server != nil {
		err = errors.Join(err, c.server.Close())
	}
	return err
}

// turn is the order of the sides in a round: each begins every other time.
func (c *comparison) turn(round int) []*side {
	out := slices.Clone(c.sides)
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// change pushes the work tree and returns the revision.
func (c *comparison) change(ctx context.Context) (string, error) {
	c.commits++
	return c.repo.push(ctx, fmt.Sprintf("Change %d", c.commits))
}

// value is one that was never used before.
func (c *comparison) value() string { return fmt.Sprintf("value of change %d", c.commits+1) }

// compareAt makes the measurements for one number of Kustomizations.
func (c *comparison) compareAt(ctx context.Context, n int) error {
	if !c.options.measure("push") && !c.options.measure("all") && !c.options.measure("ready") {
		return nil
	}
	revision, err := c.fill(ctx, n)
	if err != nil {
		return err
	}
	rounds := 1
	if c.options.measure("ready") {
		rounds = c.options.rounds
	}
	for round := range rounds {
		for _, s := range c.turn(round) {
			if err := s.remove(ctx); err != nil {
				return err
			}
			if err := c.untilReady(ctx, s, n, revision); err != nil {
				return err
			}
			if round < rounds-1 {
				if err := s.remove(ctx); err != nil {
					return err
				}
			}
		}
	}
	if c.options.measure("push") {
		if err := c.pushes(ctx, n); err != nil {
			return err
		}
	}
	if c.options.measure("all") {
		if err := c.changesOfAll(ctx, n); err != nil {
			return err
		}
	}
	for _, s := range c.sides {
		if err := s.remove(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fill pushes content for n Kustomizations and waits until both sides have it.
func (c *comparison) fill(ctx context.Context, n int) (string, error) {
	if err := c.repo.apps(n, c.value()); err != nil {
		return "", err
	}
	revision, err := c.change(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range c.sides {
		if err := s.poke(ctx); err != nil {
			return "", err
		}
		if err := poll(ctx, time.Minute, s.name+" to have the repository's content", func() error {
			u, err := c.client.Resource(gitRepositories).Namespace("flux-system").Get(ctx, s.source, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if got := artifactRevision(u); got != revision {
				return fmt.Errorf("it has %q", got)
			}
			return nil
		}); err != nil {
			return "", err
		}
	}
	return revision, nil
}
