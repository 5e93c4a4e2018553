package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/netdata/cni/wire"
	"github.com/bothy-os/bothy/netdata/ipam"
)

// Dataplane is what makes an interface a pod's.
type Dataplane interface {
	// Await returns when the pod is known well enough to be connected, or with ctx; then the
	// error says what is missing.
	Await(ctx context.Context, pod Pod) error
	// Connect puts the pod's rows into the maps and attaches the programs to
	// the host side; also when that was done before, to replace what is there.
	Connect(dev netlink.Link, pod Pod, addrs []netip.Addr, mac net.HardwareAddr) error
	// Disconnect undoes it. The interface may be gone: then index is 0. Without
	// addresses, they are those that the maps have for the interface.
	Disconnect(devName string, index int, addrs []netip.Addr) error
	HostPorts
	// Pods are the addresses in the maps and their interfaces.
	Pods() (map[netip.Addr]int, error)
}

// Pod is what the runtime says an attachment is for; zero if it says nothing.
type Pod struct {
	Namespace, Name, UID string
	// Netns is the path of its network namespace.
	Netns string
}

func (p Pod) String() string {
	if p.Name == "" {
		return ""
	}
	return p.Namespace + "/" + p.Name
}

// awaitTimeout is less than the runtime waits for an answer.
const awaitTimeout = 15 * time.Second

// Config says where the server finds and keeps things.
type Config struct {
	// Socket is where the plugin finds the agent.
	Socket string
	// Dir holds records and notes; a tmpfs that lives as long as the node's
	// namespaces.
	Dir string
	// ConfDir is where the container runtime looks for its network configuration.
	ConfDir string
	// MTU of the pods' interfaces, in bytes; see also [Server.SetMTU].
	MTU int
	// Observe is told how long each request took to answer; nil if nobody cares.
	Observe func(command string, took time.Duration, failed bool)
	Log     *slog.Logger
}

// Server answers the plugin.
type Server struct {
	cfg       Config
	dataplane Dataplane
	records   records

	// One request at a time: the kernel serialises changes to links anyway.
	mu    sync.Mutex
	pools ipam.Ranges
	mtu   int
}

// New only stores its arguments.
func New(cfg Config, dataplane Dataplane) *Server {
	return &Server{cfg: cfg, dataplane: dataplane, records: records{dir: filepath.Join(cfg.Dir, "pods")}, mtu: cfg.MTU}
}

func (s *Server) deletedDir() string { return filepath.Join(s.cfg.Dir, "deleted") }

// Serve hands out addresses of the given ranges, one per family, and answers requests until ctx
// ends. It calls ready when requests are answered and the runtime has been told so. Reconcile
// must have succeeded before.
func (s *Server) Serve(ctx context.Context, pods []netip.Prefix, ready func()) error {
	if err := s.openPools(pods); err != nil {
		return err
	}
	if err := os.Remove(s.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.cfg.Socket), 0o700); err != nil {
		return fmt.Errorf("create directory of the socket: %w", err)
	}
	listener, err := net.Listen("unix", s.cfg.Socket)
	if err != nil {
		return fmt.Errorf("listen for the CNI plugin: %w", err)
	}
	if err := os.Chmod(s.cfg.Socket, 0o600); err != nil {
		listener.Close()
		return fmt.Errorf("protect the socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.Path, s.handle)
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(listener) }()

	// What the plugin noted between the reconciliation and now.
	err = s.workOffNotes()
	if err == nil {
		err = writeConflist(s.cfg.ConfDir, s.cfg.Socket, s.deletedDir())
	}
	if err == nil {
		ready()
		select {
		case <-ctx.Done():
		case err = <-stopped:
			return fmt.Errorf("serve the CNI plugin: %w", err)
		}
	}
	// A request that is being answered is finished: the runtime counts on it.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(grace))
}

func (s *Server) openPools(pods []netip.Prefix) error {
	pools, err := ipam.NewRanges(pods)
	if err != nil {
		return err
	}
	all, err := s.records.all()
	if err != nil {
		return err
	}
	for _, rec := range all {
		pools.Claim(rec.Addrs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools = pools
	return nil
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	resp := wire.Response{}
	req, failure := decode(r.Body)
	if failure == nil {
		resp.Result, failure = s.do(r.Context(), req)
	}
	resp.Error = failure
	if s.cfg.Observe != nil {
		s.cfg.Observe(req.command, time.Since(started), failure != nil)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(resp); err != nil {
		s.cfg.Log.Warn("cni: the plugin did not take its answer", "err", err)
	}
}

func (s *Server) do(ctx context.Context, req request) (json.RawMessage, *types.Error) {
	if req.command == wire.Add {
		// Before the lock: other pods need not wait for this one.
		if failure := s.await(ctx, req.pod); failure != nil {
			return nil, failure
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch req.command {
	case wire.Add:
		return s.add(req)
	case wire.Del:
		return nil, s.del(req)
	case wire.Check:
		return nil, s.check(req)
	case wire.GC:
		return nil, s.gc(req)
	default:
		return nil, nil // STATUS: whoever answers is ready
	}
}

func (s *Server) await(ctx context.Context, pod Pod) *types.Error {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	if err := s.dataplane.Await(ctx, pod); err != nil {
		s.cfg.Log.Warn("pod is not connected yet, the runtime will try again", "pod", pod, "err", err)
		return types.NewError(types.ErrTryAgainLater, err.Error(), "no pod runs before its network policy is in force")
	}
	return nil
}

func internal(doing string, err error) *types.Error {
	return types.NewError(types.ErrInternal, doing, err.Error())
}
