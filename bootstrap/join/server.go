package join

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"

	"github.com/bothy-os/bothy/bootstrap/identity"
	"github.com/bothy-os/bothy/bootstrap/pki"
	"github.com/bothy-os/bothy/bootstrap/roster"
)

const (
	// maxConnections is how many machines are served at the same time; others wait in the
	// kernel's queue.
	maxConnections = 32
	// timeLimit is for a whole request, handshake and all.
	timeLimit = 10 * time.Second
	// A machine may ask often at first, when it is set up, and then rarely.
	burst    = 10
	interval = 10 * time.Second
)

// Issuer signs certificates.
type Issuer interface {
	Issue([]pki.Request) (*pki.Batch, error)
}

// ServerConfig is what a control plane must know.
type ServerConfig struct {
	// Addresses to listen on, all of this machine.
	Addresses []netip.AddrPort
	Identity  *identity.Identity
	// Members are asked for at each request.
	Members func() roster.Roster
	Issuer  Issuer
	// Parts are the clients that a worker has beside the kubelet.
	Parts []string
	// Joined is told of every machine that got certificates. It may be nil.
	Joined func(roster.Member)
	Log    *slog.Logger
}

// Server answers workers.
type Server struct {
	cfg ServerConfig

	mu sync.Mutex
	// limits bound how often each machine may ask. Strangers share one.
	limits map[string]*rate.Limiter
}

// NewServer only stores its arguments.
func NewServer(cfg ServerConfig) *Server {
	return &Server{cfg: cfg, limits: map[string]*rate.Limiter{}}
}

// Run listens until ctx ends.
func (s *Server) Run(ctx context.Context, ready func()) error {
	config, err := s.tlsConfig()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.handler(), TLSConfig: config,
		ReadTimeout: timeLimit, WriteTimeout: timeLimit, IdleTimeout: time.Second, MaxHeaderBytes: 8 << 10,
		// One request needs no HTTP/2.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer func() { _ = server.Close() }() // of listeners that nobody needs any more
	ended := make(chan error, len(s.cfg.Addresses))
	for _, a := range s.cfg.Addresses {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.String())
		if err != nil {
			return fmt.Errorf("listen for workers: %w; another port can be given as spec.controlPlane.joinPort", err)
		}
		listener = netutil.LimitListener(listener, maxConnections)
		all.Go(func() { ended <- server.ServeTLS(listener, "", "") })
	}
	s.cfg.Log.Info("listening for workers", "addresses", s.cfg.Addresses, "identity", s.cfg.Identity.Fingerprint())
	ready()
	select {
	case err := <-ended:
		return fmt.Errorf("serve workers: %w", err)
	case <-ctx.Done():
		return nil
	}
}

func (s *Server) tlsConfig() (*tls.Config, error) {
	own, err := s.cfg.Identity.Certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{own},
		MinVersion:   tls.VersionTLS13,
		// Who may ask is decided when it is known what for, so that the answer can say why not.
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := identity.Peer(&state)
			return err
		},
	}, nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		answer, err := s.answer(w, r)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			refusal := s.refusal(err)
			w.WriteHeader(status(refusal.Reason))
			_ = json.NewEncoder(w).Encode(refusal) // the client has gone away
			return
		}
		_ = json.NewEncoder(w).Encode(answer) // likewise
	})
	return mux
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) (*Answer, error) {
	fingerprint, err := identity.Peer(r.TLS)
	if err != nil {
		return nil, refuse(BadRequest, "%v", err)
	}
	members := s.cfg.Members()
	if !s.allow(members, fingerprint) {
		return nil, refuse(TooOften, "the machine with identity %s asks too often; it may ask again in %s", fingerprint, interval)
	}
	request, err := read(w, r)
	if err != nil {
		return nil, err
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil, fmt.Errorf("read the address of the other side: %w", err)
	}
	m, err := authorise(members, fingerprint, from.Addr(), request)
	if err != nil {
		return nil, err
	}
	names, wanted, err := grants(m, s.cfg.Parts, request)
	if err != nil {
		return nil, err
	}
	batch, err := s.cfg.Issuer.Issue(wanted)
	if err != nil {
		return nil, err
	}
	answer := &Answer{CA: batch.CA, Certificates: map[string][]byte{}}
	for i, name := range names {
		answer.Certificates[name] = batch.Certificates[i]
	}
	s.cfg.Log.Info("worker got certificates", "machine", m.Name, "from", from, "certificates", names)
	if s.cfg.Joined != nil {
		s.cfg.Joined(m)
	}
	return answer, nil
}

func read(w http.ResponseWriter, r *http.Request) (*Request, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return nil, refuse(BadRequest, "the request cannot be read: %v", err)
	}
	request := &Request{}
	if err := json.Unmarshal(data, request); err != nil {
		return nil, refuse(BadRequest, "the request is not one: %v", err)
	}
	return request, nil
}

// allow spends one of a machine's requests. Machines that are not enrolled share theirs, so that
// there are never more limits than members.
func (s *Server) allow(members roster.Roster, fingerprint string) bool {
	if _, enrolled := members.ByIdentity(fingerprint); !enrolled {
		fingerprint = ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.limits[fingerprint]
	if limit == nil {
		s.forget(members)
		limit = rate.NewLimiter(rate.Every(interval), burst)
		s.limits[fingerprint] = limit
	}
	return limit.Allow()
}

func (s *Server) forget(members roster.Roster) {
	for fingerprint := range s.limits {
		if _, enrolled := members.ByIdentity(fingerprint); !enrolled && fingerprint != "" {
			delete(s.limits, fingerprint)
		}
	}
}

// refusal turns what went wrong into an answer, and logs it. What is wrong on this side is not a
// stranger's business.
func (s *Server) refusal(err error) *Refusal {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		s.cfg.Log.Warn("worker refused", "reason", refusal.Reason, "problem", refusal.Problem)
		return refusal
	}
	s.cfg.Log.Error("worker cannot be given certificates", "err", err)
	return refuse(Unavailable, "the control plane cannot issue certificates at the moment; its log says why")
}

func status(reason Reason) int {
	switch reason {
	case BadRequest:
		return http.StatusBadRequest
	case TooOften:
		return http.StatusTooManyRequests
	case Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusForbidden
	}
}
