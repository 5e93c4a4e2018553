package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netns"
)

// netnsAPI talks to servers in the network namespace of a process.
type netnsAPI struct {
	ns        netns.NsHandle
	transport *http.Transport
}

func newNetnsAPI(pid int, pki *authority) (*netnsAPI, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of process %d: %w", pid, err)
	}
	pair, err := tls.LoadX509KeyPair(pki.path("admin.crt"), pki.path("admin.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(pki.path("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	a := &netnsAPI{ns: ns}
	a.transport = &http.Transport{
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext:     a.dial,
	}
	return a, nil
}

// dial makes the socket in the namespace; it belongs there from then on.
func (a *netnsAPI) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The thread is not given back to the runtime, because it has changed.
		runtime.LockOSThread()
		if err := netns.Set(a.ns); err != nil {
			done <- result{nil, err}
			return
		}
		conn, err := (&net.Dialer{Timeout: time.Second, FallbackDelay: -1}).DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func (a *netnsAPI) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, peerServer+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, err
}

func (a *netnsAPI) get(ctx context.Context, path string, into any) error {
	answer, err := a.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, into)
}

func (a *netnsAPI) close() {
	a.transport.CloseIdleConnections()
	_ = a.ns.Close()
}
