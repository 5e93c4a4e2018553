package netdata

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// probeInterval bounds how long after the API the wing is ready.
	probeInterval = 200 * time.Millisecond
	// probeSlow is used when the API has not answered for probeQuick.
	probeSlow    = time.Second
	probeQuick   = time.Minute
	probeTimeout = 2 * time.Second
)

// probe asks the API for what will be needed.
type probe func(context.Context, kubernetes.Interface) error

// waitForAPI returns a client once the kubeconfig exists and the probe
// succeeds. The watches of client-go back off for up to half a minute when they
// start too early; after the first success they do well by themselves. If
// ctx ends first, the client is nil and there is no error.
func waitForAPI(ctx context.Context, kubeconfig string, ask probe) (kubernetes.Interface, error) {
	started := time.Now()
	for {
		if client, err := connect(kubeconfig); err == nil {
			probeCtx, cancel := context.WithTimeout(ctx, probeTimeout)
			err = ask(probeCtx, client)
			cancel()
			if err == nil {
				return client, nil
			}
		}
		interval := probeInterval
		if time.Since(started) > probeQuick {
			interval = probeSlow
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, nil
		case <-timer.C:
		}
	}
}

func connect(kubeconfig string) (kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.UserAgent = "bothy-netdata"
	return kubernetes.NewForConfig(cfg)
}

// one keeps a probe cheap.
var one = metav1.ListOptions{Limit: 1}

func probeServices(ctx context.Context, client kubernetes.Interface) error {
	if _, err := client.CoreV1().Services("").List(ctx, one); err != nil {
		return err
	}
	_, err := client.DiscoveryV1().EndpointSlices("").List(ctx, one)
	return err
}

func probePolicy(ctx context.Context, client kubernetes.Interface) error {
	if _, err := client.CoreV1().Pods("").List(ctx, one); err != nil {
		return err
	}
	if _, err := client.CoreV1().Namespaces().List(ctx, one); err != nil {
		return err
	}
	_, err := client.NetworkingV1().NetworkPolicies("").List(ctx, one)
	return err
}

func probeNodes(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().Nodes().List(ctx, one)
	return err
}

func probeNames(ctx context.Context, client kubernetes.Interface) error {
	if err := probeServices(ctx, client); err != nil {
		return err
	}
	_, err := client.CoreV1().Namespaces().List(ctx, one)
	return err
}
