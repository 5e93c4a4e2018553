package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/test/cluster"
)

// peers are the same versions as separate processes, in namespaces like those
// of a node, with upstream's default settings.
type peers struct {
	paths cluster.Paths
	dir   string
	pki   *authority
	init  *exec.Cmd
	api   *netnsAPI
}

const (
	peerAddress = "100.127.255.2"
	peerServer  = "https://" + peerAddress + ":6443"
	peerCgroup  = "/bench-peers"
	peerNode    = "peers"
)

// peerPlan is what the first process in the namespaces reads.
type peerPlan struct {
	State, Logs string
	Path        string
	Commands    [][]string
}

func newPeers(paths cluster.Paths, dir string) (*peers, error) {
	p := &peers{paths: paths, dir: dir}
	bin := filepath.Join(paths.Root, "build", "peers")
	if _, err := os.Stat(filepath.Join(bin, "kubelet")); err != nil {
		return nil, fmt.Errorf("the separate processes are not built: run `make bench`, which builds them: %w", err)
	}
	return p, nil
}

func (*peers) name() string { return "separate processes" }

func (p *peers) state() string { return filepath.Join(p.dir, "state") }

// prepare writes keys and settings; they are made once per cold start, outside
// the measured time, as an installer would have done.
func (p *peers) prepare() error {
	a, err := newAuthority(filepath.Join(p.dir, "pki"))
	if err != nil {
		return err
	}
	p.pki = a
	local := []net.IP{net.ParseIP(peerAddress), net.ParseIP("127.0.0.1"), net.ParseIP("10.96.0.1")}
	for _, c := range []struct {
		name, user string
		groups     []string
	}{
		{"apiserver", "kube-apiserver", nil},
		{"service-accounts", "service-accounts", nil},
		{"admin", "admin", []string{"system:masters"}},
		{"controller-manager", "system:kube-controller-manager", nil},
		{"scheduler", "system:kube-scheduler", nil},
		{"kubelet", "system:node:" + peerNode, []string{"system:nodes"}},
	} {
		if err := a.issue(c.name, c.user, c.groups, local, []string{"kubernetes", "localhost", peerNode}); err != nil {
			return err
		}
		if err := a.kubeconfig(c.name, peerServer); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{
		"kubelet.yaml": fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: %s
failCgroupV1: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %s}}
authorization: {mode: Webhook}
tlsCertFile: %s
tlsPrivateKeyFile: %s
volumePluginDir: /run/volume-plugins
failSwapOn: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
`, peerCgroup, a.path("ca.crt"), a.path("kubelet.crt"), a.path("kubelet.key")),
		"containerd.toml": fmt.Sprintf(`version = 3
root = %q
state = "/run/containerd"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'bothy.local/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = %q
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [%q]
conf_dir = %q
`, filepath.Join(p.state(), "containerd"), filepath.Join(p.paths.Bin, "runc"), filepath.Join(p.paths.Root, "build", "peers"), filepath.Join(p.dir, "cni")),
		"cni/10-bench.conflist": `{"cniVersion": "1.0.0", "name": "bench", "plugins": [{"type": "ptp", "mtu": 1500,
			"ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`,
	} {
		path := filepath.Join(p.dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(p.state(), 0o755)
}

// commands are the processes with upstream's defaults, but for what ties them
// to this directory and machine.
func (p *peers) commands() [][]string {
	bin := func(name string) string { return filepath.Join(p.paths.Root, "build", "peers", name) }
	pki := p.pki.path
	return [][]string{
		{
			bin("etcd"), "--data-dir", filepath.Join(p.state(), "etcd"), "--listen-client-urls", "http://127.0.0.1:2379",
			"--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380",
		},
		{bin("containerd"), "--config", filepath.Join(p.dir, "containerd.toml")},
		{
			bin("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--advertise-address=" + peerAddress,
			"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--client-ca-file=" + pki("ca.crt"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + pki("service-accounts.pub"),
			"--service-account-signing-key-file=" + pki("service-accounts.key"),
			"--kubelet-client-certificate=" + pki("admin.crt"), "--kubelet-client-key=" + pki("admin.key"),
		},
		{
			bin("kube-controller-manager"), "--kubeconfig=" + pki("controller-manager.kubeconfig"), "--root-ca-file=" + pki("ca.crt"),
			"--service-account-private-key-file=" + pki("service-accounts.key"), "--use-service-account-credentials=true",
			"--flex-volume-plugin-dir=/run/volume-plugins",
		},
		{bin("kube-scheduler"), "--kubeconfig=" + pki("scheduler.kubeconfig")},
		{
			bin("kubelet"), "--config=" + filepath.Join(p.dir, "kubelet.yaml"), "--kubeconfig=" + pki("kubelet.kubeconfig"),
			"--hostname-override=" + peerNode, "--node-ip=" + peerAddress,
		},
	}
}

func (p *peers) start(ctx context.Context) (t times, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, statErr := os.Stat(p.state())
	cold := statErr != nil
	if cold {
		if err := p.prepare(); err != nil {
			return t, err
		}
	}
	if err := makePeerCgroups(); err != nil {
		return t, err
	}
	started := time.Now()
	if err := p.spawn(); err != nil {
		return t, err
	}
	imported := make(chan error, 1)
	go func() {
		if cold {
			imported <- p.importImages(ctx)
		} else {
			imported <- nil
		}
	}()
	if p.api, err = newNetnsAPI(p.init.Process.Pid, p.pki); err != nil {
		return t, err
	}
	every := func(what string, f func() error) (float64, error) {
		err := poll(ctx, 10*time.Millisecond, what, f)
		return time.Since(started).Seconds(), err
	}
	if t.api, err = every("the API server", func() error { _, err := p.api.do(ctx, http.MethodGet, "/readyz", nil); return err }); err != nil {
		return t, err
	}
	if cold {
		if err := poll(ctx, 10*time.Millisecond, "the workload to be accepted", func() error { return p.api.create(ctx, cluster.Site) }); err != nil {
			return t, err
		}
	}
	if t.node, err = every("the node", func() error { return p.nodeReady(ctx) }); err != nil {
		return t, err
	}
	if t.workload, err = every("the workload", func() error { return p.podAnswers(ctx) }); err != nil {
		return t, err
	}
	return t, <-imported
}

func poll(ctx context.Context, interval time.Duration, what string, f func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// spawn starts this program again as the first process of the namespaces.
func (p *peers) spawn() error {
	logs := filepath.Join(p.dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	plan, err := json.Marshal(peerPlan{
		State: p.state(), Logs: logs, Commands: p.commands(),
		Path: p.paths.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	})
	if err != nil {
		return err
	}
	p.init = exec.Command("/proc/self/exe", peerInit)
	p.init.Stdin, p.init.Stderr = bytes.NewReader(plan), os.Stderr
	p.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	return p.init.Start()
}

// importImages gives containerd the same layout that bothy imports.
func (p *peers) importImages(ctx context.Context) error {
	socket := fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", p.init.Process.Pid)
	var client *containerd.Client
	err := poll(ctx, 10*time.Millisecond, "containerd", func() error {
		if _, err := os.Stat(socket); err != nil {
			return err
		}
		var err error
		client, err = containerd.New(socket, containerd.WithTimeout(time.Second))
		return err
	})
	if err != nil {
		return err
	}
	defer client.Close()
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(archive(writer, p.paths.Images)) }()
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	images, err := client.Import(ctx, reader, containerd.WithImageRefTranslator(func(ref string) string { return ref }))
	if err != nil {
		return fmt.Errorf("import images: %w", err)
	}
	for _, img := range images {
		if err := containerd.NewImage(client, img).Unpack(ctx, ""); err != nil {
			return fmt.Errorf("unpack %s: %w", img.Name, err)
		}
	}
	return nil
}

// archive writes a directory as a tar stream.
func archive(w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		return err
	}
	return tw.Close()
}

func (p *peers) nodeReady(ctx context.Context) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	if err := p.api.get(ctx, "/api/v1/nodes/"+peerNode, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return nil
		}
	}
	return errors.New("not Ready")
}

// podAnswers asks the pod itself: there is no Service without kube-proxy.
func (p *peers) podAnswers(ctx context.Context) error {
	var pods struct {
		Items []struct{ Status struct{ PodIP string } }
	}
	if err := p.api.get(ctx, "/api/v1/namespaces/site/pods", &pods); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Status.PodIP != "" && answers(ctx, p.api.transport, "http://"+pod.Status.PodIP+":8080/healthz") {
			return nil
		}
	}
	return fmt.Errorf("no answer from %d pods", len(pods.Items))
}

func (p *peers) pids() (map[int]string, error) {
	out := map[int]string{}
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.init.Process.Pid))
	if err != nil {
		return nil, err
	}
	entries, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		return nil, err
	}
	for _, link := range entries {
		if ns, err := os.Readlink(link); err != nil || ns != want {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err != nil || pid == p.init.Process.Pid {
			continue // the init of this bench is not theirs
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		if err == nil && name != "" {
			out[pid] = filepath.Base(name)
		}
	}
	return out, nil
}

func (p *peers) stop(context.Context) error {
	if p.init == nil {
		return nil
	}
	if p.api != nil {
		p.api.close()
	}
	// As a power cut does: etcd keeps what it has acknowledged.
	if err := p.init.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = p.init.Wait() // it was killed, and says so
	p.init = nil
	return removePeerCgroups()
}

func (p *peers) purge(ctx context.Context) error {
	if err := p.stop(ctx); err != nil {
		return err
	}
	return os.RemoveAll(p.dir)
}

// create makes the objects of a manifest; those that are there already are fine.
func (a *netnsAPI) create(ctx context.Context, manifest string) error {
	paths := map[string]string{
		"Namespace": "/api/v1/namespaces", "ConfigMap": "/api/v1/namespaces/site/configmaps",
		"Deployment": "/apis/apps/v1/namespaces/site/deployments", "Service": "/api/v1/namespaces/site/services",
	}
	for doc := range strings.SplitSeq(manifest, "\n---\n") {
		body, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return err
		}
		var kind struct{ Kind string }
		if err := json.Unmarshal(body, &kind); err != nil {
			return err
		}
		if _, err := a.do(ctx, http.MethodPost, paths[kind.Kind], body); err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
			return err
		}
	}
	return nil
}

// exists says whether a path is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
