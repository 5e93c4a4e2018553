package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/bothy-os/bothy/test/cluster"
)

// peers are Flux's controllers as processes of this machine, with their default
// settings but for what ties them to it.
type peers struct {
	dir      string // on tmpfs
	commands []*exec.Cmd
}

// tmpfs is where Flux's controllers keep everything: creating files is what they
// do most, and this is where it is cheapest.
const tmpfs = "/dev/shm"

func startPeers(ctx context.Context, paths cluster.Paths, kubeconfig, logs string) (p *peers, err error) {
	p = &peers{}
	if p.dir, err = os.MkdirTemp(tmpfs, "bothy-bench-"); err != nil {
		return nil, fmt.Errorf("make a directory on tmpfs: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	storage, err := freeAddress()
	if err != nil {
		return p, err
	}
	for name, args := range map[string][]string{
		"source-controller": {
			"--storage-path=" + filepath.Join(p.dir, "storage"), "--storage-addr=" + storage, "--storage-adv-addr=" + storage,
		},
		"kustomize-controller": nil,
	} {
		binary := filepath.Join(paths.Root, "build", "peers", name)
		if _, err := os.Stat(binary); err != nil {
			return p, fmt.Errorf("%s is not built: run `make bench-gitops`, which builds it: %w", name, err)
		}
		tmp := filepath.Join(p.dir, name)
		if err := errors.Join(os.MkdirAll(tmp, 0o700), os.MkdirAll(filepath.Join(p.dir, "storage"), 0o700)); err != nil {
			return p, err
		}
		health, err := freeAddress()
		if err != nil {
			return p, err
		}
		log, err := os.Create(filepath.Join(logs, name+".log"))
		if err != nil {
			return p, err
		}
		defer log.Close()
		cmd := exec.CommandContext(ctx, binary, append(args,
			"--watch-label-selector="+shardLabel+"="+shard, "--metrics-addr=0", "--health-addr="+health, "--log-level=error")...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "TMPDIR="+tmp, "HOME="+tmp, "RUNTIME_NAMESPACE=flux-system")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			return p, err
		}
		p.commands = append(p.commands, cmd)
	}
	return p, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (p *peers) pids() (map[int]string, error) {
	out := map[int]string{}
	for _, cmd := range p.commands {
		out[cmd.Process.Pid] = filepath.Base(cmd.Path)
	}
	return out, nil
}

func (p *peers) stop() error {
	var err error
	for _, cmd := range p.commands {
		if e := cmd.Process.Kill(); e != nil && !errors.Is(e, os.ErrProcessDone) {
			err = errors.Join(err, e)
		}
		_ = cmd.Wait() // it was killed, and says so
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// peerSource is the repository as Flux's source-controller reads it.
func peerSource(ctx context.Context, client dynamic.Interface, url string) error {
	api := client.Resource(gitRepositories).Namespace("flux-system")
	_, err := api.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
		"metadata": map[string]any{"name": shard, "namespace": "flux-system", "labels": map[string]any{shardLabel: shard}},
		"spec":     map[string]any{"interval": "10h", "url": url, "ref": map[string]any{"branch": "main"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create Flux's GitRepository: %w", err)
	}
	return poll(ctx, time.Minute, "Flux's source-controller to have the repository", func() error {
		u, err := api.Get(ctx, shard, metav1.GetOptions{})
		if err == nil && !ready(u) {
			err = fmt.Errorf("its status is %v", u.Object["status"])
		}
		return err
	})
}
