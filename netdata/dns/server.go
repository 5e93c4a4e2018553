package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	// A plugin registers itself; the Corefile may name only these.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
)

// Status is what an operator sees.
type Status struct {
	Addrs []netip.Addr `json:"addrs"`
	// ClusterNames says that names of the cluster are served.
	ClusterNames bool     `json:"clusterNames"`
	Upstreams    []string `json:"upstreams,omitempty"`
}

// Server runs CoreDNS. There can be one per process: CoreDNS keeps its state
// there.
type Server struct {
	cfg Config
	log *slog.Logger
	// observer knows what was asked; it outlives a restart of CoreDNS.
	observer *observer

	mu     sync.Mutex
	status Status
}

// New only stores its arguments.
func New(cfg Config, log *slog.Logger) *Server {
	return &Server{cfg: cfg, log: log, observer: newObserver(), status: Status{Addrs: cfg.Addrs, Upstreams: cfg.usableUpstreams()}}
}

// Status returns a copy.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run serves until ctx ends. waitForAPI blocks until the API answers what CoreDNS will ask it, or
// ctx ends: CoreDNS's own watches would back off for long. ready is called
// when names of the cluster are served.
func (s *Server) Run(ctx context.Context, waitForAPI func(context.Context) error, ready func()) error {
	caddy.Quiet, dnsserver.Quiet = true, true
	registerObserve()
	observing.Store(s.observer)
	instance, err := s.start(false)
	if err != nil {
		return err
	}
	defer func() {
		for _, err := range instance.ShutdownCallbacks() {
			s.log.Warn("dns: stop", "err", err)
		}
		if err := instance.Stop(); err != nil {
			s.log.Warn("dns: stop", "err", err)
		}
		s.setClusterNames(false)
	}()
	if err := waitForAPI(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	next, err := instance.Restart(s.input(true))
	if err != nil {
		return fmt.Errorf("serve cluster names: %w", err)
	}
	instance = next
	s.setClusterNames(true)
	ready()
	<-ctx.Done()
	return nil
}

func (s *Server) input(full bool) caddy.Input {
	return caddy.CaddyfileInput{
		Contents:       []byte(s.cfg.corefile(full)),
		Filepath:       "Corefile",
		ServerTypeName: "dns",
	}
}

func (s *Server) start(full bool) (*caddy.Instance, error) {
	instance, err := caddy.Start(s.input(full))
	if err != nil {
		return nil, fmt.Errorf("start DNS on %s: %w", s.cfg.bind(), err)
	}
	return instance, nil
}

func (s *Server) setClusterNames(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.ClusterNames = on
}
