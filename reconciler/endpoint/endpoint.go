package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// Config is what the hall gives.
type Config struct {
	// Boot is the endpoint part of the boot configuration, with defaults.
	Boot *v1alpha1.BootEndpoint
	// StateDir is the node's state directory; trust/endpoint.pem below it is the
	// endpoint's own key and certificate.
	StateDir string
	// MachineName and NodeIP are who the endpoint's own certificate is for. NodeIP
	// may be empty.
	MachineName string
	NodeIP      string
	// Acceptor takes what is pushed. Nil serves no Git.
	Acceptor Acceptor
	// Trigger asks for a fetch of the boot repository. It must not block.
	Trigger func()
	// Hooks serves /hook/<…>; nil for not at all.
	Hooks http.Handler
	// MaxPush is the largest push in bytes. Default 256 MiB.
	MaxPush int64
	Log     *slog.Logger
}

// Limits of one connection and of all of them together.
const (
	maxConnections    = 128
	maxHeader         = 16 << 10
	headerTimeout     = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	shutdownTimeout   = 5 * time.Second
	defaultMaxPush    = 256 << 20
	defaultPushBranch = "main"
)

// Endpoint is the listener. Make it with New.
type Endpoint struct {
	cfg     Config
	log     *slog.Logger
	server  *certificate
	clients *x509.CertPool
	access  *access
	pushing chan struct{} // holds a token while a push is under way
	serving chan struct{} // holds a token per fetch under way
	hooking chan struct{} // holds a token per webhook call under way

	mu     sync.Mutex
	status Status
}

// Status is what an operator wants to know. It can be encoded as JSON.
type Status struct {
	// Address is where the endpoint listens, empty while it does not.
	Address string `json:"address,omitempty"`
	// Fingerprint is "sha256:<hex>" of the server's certificate, and Certificate
	// its PEM, which `git -c http.sslCAInfo=FILE` takes.
	Fingerprint string `json:"fingerprint,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	// SelfMade says that no authority vouches for the certificate.
	SelfMade bool `json:"selfMade"`
	// Pushable says that somebody is allowed to push.
	Pushable bool `json:"pushable"`
	// LastPush is the last push that was judged.
	LastPush *PushStatus `json:"lastPush,omitempty"`
}

// PushStatus is one push.
type PushStatus struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	From   string    `json:"from"`
	Commit string    `json:"commit"`
	// Verdict is "accepted", "refused" or "failed".
	Verdict string `json:"verdict"`
	Problem string `json:"problem,omitempty"`
}

// New reads or makes the certificate. It listens only when it runs.
func New(cfg Config) (*Endpoint, error) {
	switch {
	case cfg.Boot == nil:
		return nil, errors.New("endpoint: the boot configuration has no endpoint")
	case cfg.StateDir == "":
		return nil, errors.New("endpoint: no state directory")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxPush == 0 {
		cfg.MaxPush = defaultMaxPush
	}
	boot := *cfg.Boot
	boot.Default()
	cfg.Boot = &boot

	e := &Endpoint{
		cfg: cfg, log: cfg.Log,
		pushing: make(chan struct{}, 1), serving: make(chan struct{}, 2), hooking: make(chan struct{}, 4),
	}
	var err error
	if e.access, err = newAccess(boot.Tokens); err != nil {
		return nil, err
	}
	if boot.ClientCertificateAuthorities != "" {
		authorities, err := v1alpha1.ParseCertificates(boot.ClientCertificateAuthorities)
		if err != nil {
			return nil, fmt.Errorf("endpoint.clientCertificateAuthorities in the boot configuration %w", err)
		}
		e.clients = x509.NewCertPool()
		for _, c := range authorities {
			e.clients.AddCert(c)
		}
	}
	if e.server, err = openCertificate(cfg); err != nil {
		return nil, err
	}
	e.status = Status{SelfMade: e.server.selfMade, Pushable: boot.Pushable()}
	return e, nil
}

// Status returns the present state.
func (e *Endpoint) Status() Status {
	e.mu.Lock()
	s := e.status
	e.mu.Unlock()
	s.Fingerprint, s.Certificate = e.server.describe()
	return s
}

func (e *Endpoint) update(change func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.status)
}

// Run listens until ctx ends. It calls ready once connections are accepted.
func (e *Endpoint) Run(ctx context.Context, ready func()) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", e.cfg.Boot.Address)
	if err != nil {
		return fmt.Errorf("listen for pushes and webhooks: %w; choose another endpoint.address in the boot configuration, or stop what uses it", err)
	}
	e.update(func(s *Status) { s.Address = listener.Addr().String() })
	defer e.update(func(s *Status) { s.Address = "" })

	server := &http.Server{
		Handler:           e.routes(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(noise{e.log}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: e.server.get,
			ClientCAs:      e.clients,
			ClientAuth:     clientAuth(e.clients),
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(netutil.LimitListener(listener, maxConnections), "", "") }()
	ready()
	select {
	case err := <-failed:
		return fmt.Errorf("serve pushes and webhooks: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // whoever did not end in time is cut off
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("stop serving pushes and webhooks: %w", err)
	}
	return nil
}

// clientAuth asks for client certificates only where one could help, so that
// browsers and webhooks are not bothered.
func clientAuth(authorities *x509.CertPool) tls.ClientAuthType {
	if authorities == nil {
		return tls.NoClientCert
	}
	return tls.VerifyClientCertIfGiven
}

func (e *Endpoint) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /hook", e.hook)
	if e.cfg.Hooks != nil {
		mux.Handle("POST /hook/{digest}", limited(e.hooking, e.cfg.Hooks))
	}
	if e.cfg.Acceptor != nil && e.cfg.Boot.Pushable() {
		mux.HandleFunc("GET /git/{repository}/info/refs", e.authenticated(e.advertise))
		mux.HandleFunc("POST /git/{repository}/git-receive-pack", e.authenticated(e.receivePack))
		mux.HandleFunc("POST /git/{repository}/git-upload-pack", e.authenticated(e.uploadPack))
	}
	return mux
}

// limited lets as many requests through at a time as places has room for.
func limited(places chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !enter(r.Context(), places) {
			return
		}
		defer leave(places)
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(hookTimeout)) // a test's recorder has none
		next.ServeHTTP(w, r)
	})
}

// enter waits for a place. It reports false if the caller went away.
func enter(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func leave(places chan struct{}) { <-places }

// noise takes what net/http says about connections that broke or were never
// meant for it.
type noise struct{ log *slog.Logger }

func (n noise) Write(p []byte) (int, error) {
	n.log.Debug("endpoint connection", "problem", string(p))
	return len(p), nil
}
