package mirror

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

const (
	handshakeTimeout = 30 * time.Second
	maxRedirects     = 5
)

// overHTTP is a repository behind smart HTTP.
type overHTTP struct {
	uploadPack
	base   *url.URL // follows redirects, as git does
	client *http.Client
	creds  *Credentials
	watch  *watchdog
}

func openHTTP(address string, creds *Credentials, watch *watchdog) (source, error) {
	base, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("understand URL: %w", err)
	}
	if base.User != nil && creds.Username == "" && creds.Password == "" {
		password, _ := base.User.Password()
		with := *creds
		with.Username, with.Password = base.User.Username(), password
		creds = &with
	}
	base.User = nil
	base.Path = strings.TrimSuffix(base.Path, "/")
	tlsConfig, err := creds.tlsConfig()
	if err != nil {
		return nil, err
	}
	proxy, err := creds.proxy()
	if err != nil {
		return nil, err
	}
	h := &overHTTP{base: base, creds: creds, watch: watch}
	h.client = &http.Client{
		CheckRedirect: h.redirect,
		// One fetch has its own connections, which end with it.
		Transport: &http.Transport{
			Proxy:                  proxy,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    handshakeTimeout,
			DialContext:            (&net.Dialer{Timeout: handshakeTimeout}).DialContext,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
		},
	}
	return h, nil
}

func (c *Credentials) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACertificates != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(c.CACertificates)) {
			return nil, errors.New("caCertificates in the credentials holds no PEM certificate")
		}
	}
	if c.ClientCertificate != "" || c.ClientKey != "" {
		pair, err := tls.X509KeyPair([]byte(c.ClientCertificate), []byte(c.ClientKey))
		if err != nil {
			return nil, fmt.Errorf("clientCertificate and clientKey in the credentials: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// proxy returns the proxy of the credentials, else that of the environment.
func (c *Credentials) proxy() (func(*http.Request) (*url.URL, error), error) {
	if c.Proxy == "" {
		return http.ProxyFromEnvironment, nil
	}
	u, err := url.Parse(c.Proxy)
	if err != nil || u.Host == "" {
		return nil, errors.New("proxy in the credentials is not a URL; write http://host:port, https://host:port or socks5://host:port")
	}
	return http.ProxyURL(u), nil
}

// redirect decides whether a redirect is followed: never to a connection
// without TLS, and with credentials never to another host.
func (h *overHTTP) redirect(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	case next.URL.Scheme != first.Scheme && next.URL.Scheme != "https":
		return fmt.Errorf("it redirects from %s to %s, which is not followed", first.Scheme, next.URL.Scheme)
	case next.URL.Host != first.Host && h.creds.forHTTP():
		return fmt.Errorf("it redirects from %s to %s, which must not see the credentials; if it moved there, write the new URL", first.Host, next.URL.Host)
	}
	return nil
}

func (h *overHTTP) advertise(ctx context.Context) (advertised, error) {
	const service = "/info/refs?service=git-upload-pack"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base.String()+service, nil)
	if err != nil {
		return advertised{}, err
	}
	resp, err := h.do(req)
	if err != nil {
		return advertised{}, err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); kind != "application/x-git-upload-pack-advertisement" {
		return advertised{}, fmt.Errorf("it answers with %q, not with git's protocol; is this the URL of a repository?", kind)
	}
	if moved, ok := strings.CutSuffix(resp.Request.URL.String(), service); ok {
		if u, err := url.Parse(moved); err == nil {
			h.base = u
		}
	}
	return h.readAdvertised(h.watch.count(resp.Body))
}

func (h *overHTTP) stage(ctx context.Context, m *Mirror, req request) ([]*staged, error) {
	body, err := h.encode(req)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, h.base.String()+"/git-upload-pack", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	post.Header.Set("Accept", "application/x-git-upload-pack-result")
	resp, err := h.do(post)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return h.uploadPack.stage(ctx, m, req, resp.Body, h.watch)
}

// do sends a request and turns what is not 200 into an error.
func (h *overHTTP) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", "git/bothy") // some hosts answer only to git/…
	switch {
	case h.creds.BearerToken != "":
		req.Header.Set("Authorization", "Bearer "+h.creds.BearerToken)
	case h.creds.Username != "" || h.creds.Password != "":
		req.SetBasicAuth(h.creds.Username, h.creds.Password)
	}
	h.watch.waits.Add(1)
	resp, err := h.client.Do(req)
	h.watch.waits.Add(-1)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL is said already
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		err = transport.ErrAuthenticationRequired
	case http.StatusForbidden:
		err = transport.ErrAuthorizationFailed
	case http.StatusNotFound:
		err = transport.ErrRepositoryNotFound
	default:
		return nil, plain(fmt.Errorf("it answers with status %s", resp.Status))
	}
	return nil, fmt.Errorf("%w (status %d)", err, resp.StatusCode)
}

func (h *overHTTP) close() { h.client.CloseIdleConnections() }
