package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/bothy-os/bothy/test/cluster"
)

// sitePath is the site's directory in its repository.
const sitePath = "clusters/default"

// clusterFile has both address families. Pools of load balancers come with the node's address.
const clusterFile = `apiVersion: bothy.dev/v1alpha1
kind: Cluster
metadata:
  name: conformance
spec:
  network:
    podCIDRs: [10.244.0.0/16, "fd62:6f74:6879:f400::/56"]
    serviceCIDRs: [10.96.0.0/16, "fd62:6f74:6879:6000::/112"]
`

// site is next to nothing: the suite brings what it needs, and expects a
// cluster without other workloads.
const site = `apiVersion: v1
kind: ConfigMap
metadata:
  name: conformance
  namespace: kube-system
data:
  purpose: the upstream end-to-end suite runs here
`

// startNode returns a node that serves: the one an earlier run has left, or a
// new one.
func startNode(ctx context.Context, d dirs, nodes int) (*cluster.Node, error) {
	if why := d.Missing(); why != "" {
		return nil, errors.New(why)
	}
	dir := filepath.Join(d.Runs, "conformance")
	bare, tree := filepath.Join(dir, "site.git"), filepath.Join(dir, "tree")
	node := &cluster.Node{
		Paths: d.Paths, Name: "conformance", State: filepath.Join(dir, "state"),
		Args: []string{"--repo", "file://" + bare, "--trust-root", filepath.Join(tree, "trust", "root.yaml"), "--images", d.layout},
	}
	if nodes > 1 {
		node.Workers = nodes - 1
		node.Args = append(node.Args, "--enrol-in", tree)
	}
	if serving(ctx, node) {
		return node, nil
	}
	if err := node.Stop(ctx, true); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := makeRepo(ctx, d, dir, tree, bare); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "%s  starting a node\n", now())
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	up, err := node.Start(ctx, nil)
	if err == nil {
		err = errors.Join(addPool(ctx, node, tree, up), addZones(ctx, node, up))
	}
	if err != nil {
		return nil, errors.Join(err, node.Stop(context.WithoutCancel(ctx), true))
	}
	return node, nil
}

// singlePool is how many addresses there are for load balancers on the link of a single node, sharedPool how many are
// taken of those on the link of several.
const (
	singlePool = 4
	sharedPool = 32
)

// addPool gives Services of type LoadBalancer addresses on the nodes' link, which this machine
// reaches without a route of its own. That of a single node has six: the first is this machine's, the second the
// node's. Nodes have addresses in a row.
func addPool(ctx context.Context, node *cluster.Node, tree string, up *cluster.UpResult) error {
	own, err := netip.ParseAddr(up.NodeIP)
	if err != nil {
		return fmt.Errorf("address of the node: %w", err)
	}
	size := singlePool
	for range up.Nodes {
		own, size = own.Next(), sharedPool
	}
	first := own.Next()
	last := first
	for range size - 1 {
		last = last.Next()
	}
	pool := fmt.Sprintf("    loadBalancer:\n      pools: [{name: link, addresses: [%s-%s]}]\n", first, last)
	file := filepath.Join(sitePath, "cluster.yaml")
	if err := os.WriteFile(filepath.Join(tree, file), []byte(clusterFile+pool), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"commit", "--quiet", "--gpg-sign", "-m", "Addresses for load balancers", file},
		{"push", "--quiet", "origin", "HEAD:main"},
	} {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", tree}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
		}
	}
	r, err := node.Bothy(ctx, nil, "reconcile")
	if err == nil && r.Code != 0 {
		err = errors.New(strings.TrimSpace(r.Stderr))
	}
	if err != nil {
		return fmt.Errorf("apply the addresses for load balancers: %w", err)
	}
	return cluster.Poll(ctx, time.Minute, "the node to serve", func() error { return node.Serving(ctx) })
}

// zones are as many as the specs about traffic between zones ask for, some of them with two nodes in each.
const zones = 3

// addZones deals the nodes out to zones: up to three have one of their own, and of six there are two in each. If there
// are more, the control plane is left to itself, for a spec that wants nodes of one size: it reserves CPU time that a
// worker does not.
func addZones(ctx context.Context, node *cluster.Node, up *cluster.UpResult) error {
	k, err := node.NewKubectl(ctx)
	if err != nil {
		return err
	}
	nodes := append([]struct{ Node, NodeIP string }{{up.Node, up.NodeIP}}, up.Nodes...)
	for i, n := range nodes {
		if _, err := k.Output(ctx, "label", "node", n.Node, fmt.Sprintf("%s=zone-%d", corev1.LabelTopologyZone, i%zones+1)); err != nil {
			return err
		}
	}
	if len(nodes) > 2*zones {
		_, err = k.Output(ctx, "taint", "node", up.Node, "node-role.kubernetes.io/control-plane=:"+string(corev1.TaintEffectNoSchedule))
	}
	return err
}

func makeRepo(ctx context.Context, d dirs, dir, tree, bare string) error {
	template := filepath.Join(dir, "template")
	if err := os.MkdirAll(filepath.Join(template, sitePath), 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"cluster.yaml": clusterFile, "site.yaml": site} {
		if err := os.WriteFile(filepath.Join(template, sitePath, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, d.Bothy(), "repo", "init", "--template", template,
		"--dir", tree, "--bare", bare, "--signer", "conformance", "--generate-key", filepath.Join(dir, "key"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the repository: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// serving says whether a node runs with as many workers as it is to have.
func serving(ctx context.Context, node *cluster.Node) bool {
	st, err := node.ReadStatus(ctx)
	if err != nil || len(st.Machines) != node.Workers || node.Serving(ctx) != nil {
		return false
	}
	for _, m := range st.Machines {
		if !m.Ready {
			return false
		}
	}
	return true
}
