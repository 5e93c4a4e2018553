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

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bothy-os/bothy/test/cluster"
)

// patience is for things that take seconds.
const patience = 2 * time.Minute

// site is a node as `bothy up` makes it, whose API server serves all sides.
type site struct {
	node    *cluster.Node
	kubectl *cluster.Kubectl
	client  kubernetes.Interface
}

func startSite(ctx context.Context, paths cluster.Paths, dir string) (*site, error) {
	template := filepath.Join(dir, "template", "clusters", "default")
	if err := os.MkdirAll(template, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(template, "site.yaml"), []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: bench}\n"), 0o644); err != nil {
		return nil, err
	}
	tree, bare := filepath.Join(dir, "tree"), filepath.Join(dir, "site.git")
	cmd := exec.CommandContext(ctx, paths.Bothy(), "repo", "init", "--template", filepath.Join(dir, "template"),
		"--dir", tree, "--bare", bare, "--signer", "bench", "--generate-key", filepath.Join(dir, "key"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make the repository: %w: %s", err, out)
	}
	s := &site{node: &cluster.Node{
		Paths: paths, Name: "benchnet", State: filepath.Join(dir, "state"),
		Args: []string{"--repo", "file://" + bare, "--trust-root", filepath.Join(tree, "trust", "root.yaml")},
	}}
	return s, s.start(ctx)
}

func (s *site) start(ctx context.Context) error {
	_, err := s.node.Start(ctx, nil)
	if err != nil {
		return err
	}
	if s.kubectl, err = s.node.NewKubectl(ctx); err != nil {
		return err
	}
	s.kubectl = s.kubectl.In(namespace)
	config, err := clientcmd.BuildConfigFromFlags("", s.kubectl.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // what is measured is behind the API server
	s.client, err = kubernetes.NewForConfig(config)
	return err
}

// side waits for the pods and enters their networks.
func (s *site) side(ctx context.Context) (out *side, err error) {
	out = &side{name: ours, pods: map[string]*cluster.Namespace{}, ips: map[string]string{}, process: s.agent}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.end())
		}
	}()
	if out.node, err = s.node.Namespace(); err != nil {
		return out, err
	}
	out.close = append(out.close, out.node.Close)
	if out.cgroup, err = s.node.Cgroup2(); err != nil {
		return out, err
	}
	addresses, err := s.kubectl.Field(ctx, "node/"+s.node.Name, `{.status.addresses[?(@.type=="InternalIP")].address}`)
	if err != nil {
		return out, err
	}
	out.nodeIP, _, _ = strings.Cut(addresses, " ") // the first is IPv4's
	for _, role := range roles {
		var ns *cluster.Namespace
		if ns, out.ips[role], err = s.kubectl.OpenPod(ctx, s.node, role, patience); err != nil {
			return out, err
		}
		out.pods[role] = ns
		out.close = append(out.close, ns.Close)
	}
	return out, out.tune()
}

func (s *site) agent() (int, error) {
	p, err := s.node.Process("agent")
	return p.PID, err
}
