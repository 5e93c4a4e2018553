package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/bothy-os/bothy/test/cluster"
)

// apiInRouter is where a router finds the API server.
const apiInRouter = "127.0.0.1:6443"

// startPeer runs kube-proxy in a router, with its default settings but for what ties it
// to this machine.
func startPeer(ctx context.Context, s *site, router *side, mode, dir string) error {
	binary := filepath.Join(s.node.Paths.Root, "build", "peers", "kube-proxy")
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%s is not built: run `make bench-net`, which builds it: %w", binary, err)
	}
	kubeconfig, err := s.forward(router.node, filepath.Join(dir, mode+".kubeconfig"), &router.close)
	if err != nil {
		return err
	}
	podRange, err := s.kubectl.Field(ctx, "node/"+s.node.Name, "{.spec.podCIDR}")
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, mode+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	prefix, _, _ := uplink(peerIndex[mode])
	cmd := exec.CommandContext(ctx, binary,
		"--proxy-mode="+mode, "--kubeconfig="+kubeconfig, "--hostname-override="+s.node.Name,
		"--cluster-cidr="+podRange, "--nodeport-addresses="+prefix.String(),
		// The size of the connection table cannot be set from a namespace.
		"--conntrack-max-per-core=0", "--conntrack-min=0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := router.node.Start(cmd); err != nil {
		return fmt.Errorf("start kube-proxy: %w", err)
	}
	router.pause = func() error { return cmd.Process.Signal(syscall.SIGSTOP) }
	router.resume = func() error { return cmd.Process.Signal(syscall.SIGCONT) }
	router.process = func() (int, error) { return cmd.Process.Pid, nil }
	router.close = append(router.close, func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // it was killed, and says so
		if errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kube-proxy --proxy-mode %s ended by itself; see %s", mode, log.Name())
		}
		return err
	})
	return nil
}

var peerIndex = map[string]int{routed: 1, nftables: 2, iptables: 3}

// forward has the API server answer in a namespace that has no route to it, and writes
// a kubeconfig for there.
func (s *site) forward(ns *cluster.Namespace, path string, closers *[]func() error) (string, error) {
	config, err := clientcmd.LoadFromFile(s.kubectl.Kubeconfig)
	if err != nil {
		return "", err
	}
	var server *url.URL
	for _, c := range config.Clusters {
		if server, err = url.Parse(c.Server); err != nil {
			return "", err
		}
		c.Server, c.TLSServerName = "https://"+apiInRouter, server.Hostname()
	}
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", err
	}
	l, err := ns.Listen("tcp", apiInRouter)
	if err != nil {
		return "", err
	}
	*closers = append(*closers, l.Close)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go splice(in, server.Host)
		}
	}()
	return path, nil
}

// splice joins a connection with a new one to the address.
func splice(in net.Conn, address string) {
	defer in.Close()
	out, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		defer in.Close()
		defer out.Close()
		_, _ = io.Copy(in, out)
	}()
	_, _ = io.Copy(out, in)
}
