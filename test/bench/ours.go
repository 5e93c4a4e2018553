package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// ours is a node as `bothy up` makes it.
type ours struct {
	node *cluster.Node
}

// workloadPort is the NodePort of cluster.Site.
const workloadPort = "30080"

func newOurs(ctx context.Context, paths cluster.Paths, dir string) (*ours, error) {
	template := filepath.Join(dir, "template", "clusters", "default")
	if err := os.MkdirAll(template, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(template, "site.yaml"), []byte(cluster.Site), 0o644); err != nil {
		return nil, err
	}
	tree, bare := filepath.Join(dir, "tree"), filepath.Join(dir, "site.git")
	cmd := exec.CommandContext(ctx, paths.Bothy(), "repo", "init", "--template", filepath.Join(dir, "template"),
		"--dir", tree, "--bare", bare, "--signer", "bench", "--generate-key", filepath.Join(dir, "key"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make the repository: %w: %s", err, out)
	}
	return &ours{&cluster.Node{
		Paths: paths, Name: "bench", State: filepath.Join(dir, "state"),
		Args: []string{"--repo", "file://" + bare, "--trust-root", filepath.Join(tree, "trust", "root.yaml")},
	}}, nil
}

func (*ours) name() string { return "bothy" }

func (o *ours) start(ctx context.Context) (times, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	started := time.Now()
	answered := make(chan time.Duration, 1)
	probing, stopProbing := context.WithCancel(ctx)
	defer stopProbing()
	go func() { answered <- o.firstAnswer(probing, started) }()
	up, err := o.node.Start(ctx, nil)
	if err != nil {
		return times{}, err
	}
	t := times{api: up.Milestones["apiReady"], node: up.Milestones["nodeReady"]}
	select {
	case d := <-answered:
		t.workload = d.Seconds()
	case <-ctx.Done():
		return t, fmt.Errorf("the node came up, but the workload does not answer: %w", context.Cause(ctx))
	}
	return t, nil
}

// firstAnswer waits until the workload answers a request from this machine.
func (o *ours) firstAnswer(ctx context.Context, started time.Time) time.Duration {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ip, err := o.address(started); err == nil && answers(ctx, http.DefaultTransport, "http://"+ip+":"+workloadPort+"/healthz") {
			return time.Since(started)
		}
		select {
		case <-ctx.Done():
			return 0
		case <-tick.C:
		}
	}
}

// address is the node's, once this start has recorded it.
func (o *ours) address(started time.Time) (string, error) {
	file := filepath.Join(o.node.State, "sandbox.json")
	st, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var record struct {
		Network struct{ NodeAddress string }
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return "", err
	}
	if st.ModTime().Before(started) || record.Network.NodeAddress == "" {
		return "", os.ErrNotExist
	}
	return record.Network.NodeAddress, nil
}

func answers(ctx context.Context, transport http.RoundTripper, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	req.Close = true
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (o *ours) pids() (map[int]string, error) {
	all, err := o.node.Processes()
	if err != nil {
		return nil, err
	}
	out := map[int]string{}
	for _, p := range all {
		name := filepath.Base(p.Args[0])
		if name == "bothy" && len(p.Args) > 1 {
			name += " " + p.Args[1]
		}
		if name != "hello" && !strings.HasPrefix(name, "runc") {
			out[p.PID] = name
		}
	}
	return out, nil
}

func (o *ours) stop(ctx context.Context) error  { return o.node.Stop(ctx, false) }
func (o *ours) purge(ctx context.Context) error { return o.node.Stop(ctx, true) }
