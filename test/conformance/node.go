package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

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
func startNode(ctx context.Context, d dirs) (*cluster.Node, error) {
	if why := d.Missing(); why != "" {
		return nil, errors.New(why)
	}
	dir := filepath.Join(d.Runs, "conformance")
	bare, tree := filepath.Join(dir, "site.git"), filepath.Join(dir, "tree")
	node := &cluster.Node{
		Paths: d.Paths, Name: "conformance", State: filepath.Join(dir, "state"),
		Args: []string{"--repo", "file://" + bare, "--trust-root", filepath.Join(tree, "trust", "root.yaml"), "--images", d.layout},
	}
	if node.Serving(ctx) == nil {
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
	if _, err := node.Start(ctx, nil); err != nil {
		return nil, errors.Join(err, node.Stop(context.WithoutCancel(ctx), true))
	}
	return node, nil
}

func makeRepo(ctx context.Context, d dirs, dir, tree, bare string) error {
	template := filepath.Join(dir, "template", "clusters", "default")
	if err := os.MkdirAll(template, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(template, "site.yaml"), []byte(site), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, d.Bothy(), "repo", "init", "--template", filepath.Join(dir, "template"),
		"--dir", tree, "--bare", bare, "--signer", "conformance", "--generate-key", filepath.Join(dir, "key"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the repository: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
