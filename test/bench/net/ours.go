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

// siteFiles switch on the splice, which the processes in the node's cgroup then have: that are
// the clients and servers of the side for it, and those of no other.
var siteFiles = map[string]string{
	"cluster.yaml": `
apiVersion: bothy.dev/v1alpha1
kind: Cluster
metadata: {name: default}
spec: {network: {spliceNamespaces: [bench], encapsulation: ENCAPSULATION}}
`,
	"site.yaml": `
apiVersion: v1
kind: Namespace
metadata: {name: bench}
---
apiVersion: v1
kind: Namespace
metadata: {name: bench-open}
`,
}

func startSite(ctx context.Context, paths cluster.Paths, dir string, o options) (*site, error) {
	encapsulation := "CrossSubnet"
	if o.encapsulate {
		encapsulation = "Always"
	}
	template := filepath.Join(dir, "template", "clusters", "default")
	if err := os.MkdirAll(template, 0o755); err != nil {
		return nil, err
	}
	for name, content := range siteFiles {
		content = strings.Replace(content, "ENCAPSULATION", encapsulation, 1)
		if err := os.WriteFile(filepath.Join(template, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
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
	if o.far() {
		s.node.Workers = 1
		s.node.Args = append(s.node.Args, "--enrol-in", tree)
	}
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
	config.ContentType = "application/vnd.kubernetes.protobuf"
	s.client, err = kubernetes.NewForConfig(config)
	return err
}

// side waits for the pods and enters their networks.
func (s *site) side(ctx context.Context) (out *side, err error) {
	out = &side{
		name: ours, process: s.agent,
		pods: map[string]*cluster.Namespace{}, ips: map[string]string{}, ips6: map[string]string{},
	}
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
	if err := s.enterPods(ctx, s.kubectl, out, roles...); err != nil {
		return out, err
	}
	if s.node.Workers > 0 {
		if err := s.enterPods(ctx, s.kubectl, out, farPod); err != nil {
			return out, err
		}
	}
	return out, out.tune()
}

// enterPods waits for pods, and makes their networks those of a side.
func (s *site) enterPods(ctx context.Context, kubectl *cluster.Kubectl, out *side, roles ...string) error {
	for _, role := range roles {
		ns, ip, err := kubectl.OpenPod(ctx, s.node, role, patience)
		if err != nil {
			return err
		}
		out.pods[role], out.ips[role] = ns, ip
		out.close = append(out.close, ns.Close)
		if out.ips6[role], err = kubectl.Field(ctx, "pod/"+role, "{.status.podIPs[1].ip}"); err != nil {
			return fmt.Errorf("the IPv6 address of pod %s: %w", role, err)
		}
	}
	return nil
}

// openSide has pods to which no policy applies.
func (s *site) openSide(ctx context.Context) (*side, error) {
	out := &side{name: open, pods: map[string]*cluster.Namespace{}, ips: map[string]string{}, ips6: map[string]string{}}
	if err := s.enterPods(ctx, s.kubectl.In(openNamespace), out, clientPod, serverPod); err != nil {
		return out, errors.Join(err, out.end())
	}
	out.ips6 = nil // one family shows it
	return out, out.tune()
}

// spliceShift keeps the servers of the spliced side apart from those in the same pods.
const spliceShift = 100

// splicedSide has the pods of ours, with clients and servers whose connections are spliced.
func (s *site) splicedSide(our *side) (*side, error) {
	tables, err := s.node.Tables()
	if err != nil {
		return nil, err
	}
	if _, there := tables["splice/spliced4"]; !there {
		return nil, errors.New("the node splices no connections: `bothy net status` says why")
	}
	return &side{name: spliced, pods: our.pods, ips: our.ips, podCgroup: our.cgroup, shift: spliceShift}, nil
}

func (s *site) agent() (int, error) {
	p, err := s.node.Process("agent")
	return p.PID, err
}
