package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/bothy-os/bothy/internal/durable"
)

const (
	memberName = "bothy"
	// The heartbeat decides how soon a lone member elects itself, and nothing
	// else here. Faster costs wake-ups while idle.
	tickMillis     = 20
	electionMillis = 100
	// batchInterval is how long changes are gathered before the database file
	// is written and fsynced. Each such commit rewrites some 40 KiB of pages,
	// whatever the change; the log holds the changes meanwhile.
	batchInterval = time.Second
	// batchLimit ends gathering early, so that reads during a burst of writes
	// need not copy a large buffer.
	batchLimit = 1000
	// snapshotCount is the number of writes after which old log files go.
	snapshotCount = 10_000
	// At start the database file is compacted when at least this much is free.
	defragThresholdMiB = 64
	remedy             = "if its data is damaged, move the directory away and restore a snapshot, or start without it and let the repository bring the cluster back"
	// socketPathLimit is the size of sockaddr_un.sun_path, less the final zero.
	socketPathLimit = 107
)

// Config says where etcd keeps its data and how large it may grow.
type Config struct {
	// Dir is the data directory.
	Dir string
	// Socket serves clients, HTTPSocket health and metrics. Their directories
	// are made with mode 0700.
	Socket, HTTPSocket string
	// QuotaMiB is the size at which writes are refused.
	QuotaMiB int
	Log      *slog.Logger
}

// Validate checks what can be checked without touching anything.
func (c Config) Validate() error {
	for _, path := range []string{c.Socket, c.HTTPSocket} {
		if len(path) > socketPathLimit {
			return fmt.Errorf("socket path %s is %d characters long, the limit is %d: choose a shorter run directory", path, len(path), socketPathLimit)
		}
	}
	return nil
}

// Server is a running etcd.
type Server struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	// closing mutes what etcd says about being closed.
	closing *atomic.Bool
}

// Start runs etcd and returns when it serves. Damaged data is an error.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	for _, dir := range []string{cfg.Dir, filepath.Dir(cfg.Socket), filepath.Dir(cfg.HTTPSocket)} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create etcd directory: %w", err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, fmt.Errorf("protect etcd directory: %w", err)
		}
	}
	if err := checkDatabase(cfg.Dir); err != nil {
		return nil, explain(cfg.Dir, err)
	}
	lines := &core{log: cfg.Log, closing: new(atomic.Bool)}
	e, err := start(settings(cfg, newLogger(lines)))
	if err != nil {
		return nil, explain(cfg.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, explain(cfg.Dir, err)
	case <-e.Server.StopNotify():
		e.Close()
		return nil, explain(cfg.Dir, errors.New("it stopped while starting"))
	case <-ctx.Done():
		e.Close()
		return nil, ctx.Err()
	}
	return &Server{etcd: e, client: v3client.New(e.Server), closing: lines.closing}, nil
}

func settings(cfg Config, lg *zap.Logger) *embed.Config {
	c := embed.NewConfig()
	c.Name = memberName
	c.Dir = cfg.Dir
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(lg)
	clientURL := url.URL{Scheme: "unix", Path: cfg.Socket}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{clientURL}, []url.URL{clientURL}
	c.ListenClientHttpUrls = []url.URL{{Scheme: "unix", Path: cfg.HTTPSocket}}
	// A lone member has no peers and must not listen for any. (Given a unix URL
	// for them, etcd would listen on an abstract socket, which every process in
	// the network namespace can reach.) The advertised URL is a placeholder.
	c.ListenPeerUrls = nil
	c.InitialCluster = memberName + "=" + c.AdvertisePeerUrls[0].String()
	c.AuthToken = "" // access is by the directory's mode
	c.TickMs, c.ElectionMs = tickMillis, electionMillis
	c.QuotaBackendBytes = int64(cfg.QuotaMiB) << 20
	c.BackendBatchInterval, c.BackendBatchLimit = batchInterval, batchLimit
	c.SnapshotCount = snapshotCount
	c.BootstrapDefragThresholdMegabytes = defragThresholdMiB
	c.MaxWalFiles, c.MaxSnapFiles = 2, 2
	c.EnableGRPCGateway = false
	return c
}

// start confines the panics by which etcd reports damaged data.
func start(cfg *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return embed.StartEtcd(cfg)
}

func explain(dir string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("start etcd on %s: %w", dir, err)
	}
	return fmt.Errorf("start etcd on %s: %w: %s", dir, err, remedy)
}

// Client talks to etcd without a socket.
func (s *Server) Client() *clientv3.Client { return s.client }

// Size returns the bytes of the database file and those of them in use.
func (s *Server) Size() (file, used int64) {
	backend := s.etcd.Server.Backend()
	return backend.Size(), backend.SizeInUse()
}

// Wait returns when ctx ends, or with an error when etcd stops on its own.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-s.etcd.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-s.etcd.Server.StopNotify():
		return errors.New("etcd stopped by itself; its log lines say why")
	}
}

// Close stops etcd and returns when its files are closed.
func (s *Server) Close() {
	s.closing.Store(true)
	s.client.Close()
	s.etcd.Close()
}
