// Package patient makes API clients that wait for a server that is just
// starting instead of failing.
//
// Kubernetes components answer a refused connection with exponential back-off:
// one that starts beside the API server has waited for many seconds by the time
// it tries again, though the server was up after two. A patient connection is
// tried again every few milliseconds while it is refused, so the first request
// gets through the moment somebody listens.
//
// The package must not know what the client is for.
package patient

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// retryEvery is the pause between attempts. A refused connection on the
	// same machine costs some microseconds.
	retryEvery = 25 * time.Millisecond
	// limit bounds the wait, so that a server that is really gone is noticed
	// and shows as an error.
	limit = 20 * time.Second
)

// RESTConfig reads a kubeconfig and returns a configuration whose connections
// are patient.
func RESTConfig(kubeconfig string) (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.Dial = Dialer(&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second})
	return cfg, nil
}

// Dialer returns a dial function that tries again while nobody listens.
func Dialer(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		deadline := time.Now().Add(limit)
		for {
			conn, err := d.DialContext(ctx, network, address)
			if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
				return conn, err
			}
			timer := time.NewTimer(retryEvery)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return nil, err
			}
		}
	}
}
