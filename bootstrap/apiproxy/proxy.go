// Package apiproxy is the API server's stand-in on a worker.
//
// It listens on loopback and hands each connection to the first control plane that can be reached,
// beginning with the one that worked last. It does not look into connections: TLS is between the
// client and the API server. So everything on the node has one address for the API that never changes, and
// control planes may come and go.
//
// The package must not know certificates, nor who its clients are.
package apiproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/supervise"
)

const (
	// ComponentName is the name of the component.
	ComponentName = "api-proxy"

	dialLimit = 3 * time.Second
	// silence is how long the other side may leave data unacknowledged. A control plane whose machine
	// lost its power says nothing.
	silence = 20 * time.Second
)

// Proxy forwards connections.
type Proxy struct {
	listen  netip.AddrPort
	targets []netip.AddrPort
	log     *slog.Logger
	// last is the index of the target that worked last.
	last atomic.Int64
}

// New only stores its arguments.
func New(listen netip.AddrPort, targets []netip.AddrPort, log *slog.Logger) *Proxy {
	return &Proxy{listen: listen, targets: targets, log: log}
}

// Component listens until its context ends.
func (p *Proxy) Component() supervise.Component {
	return supervise.Component{Name: ComponentName, Run: p.run, Grace: time.Second}
}

func (p *Proxy) run(ctx context.Context, ready func()) error {
	if len(p.targets) == 0 {
		return errors.New("no control plane is known")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.listen.String())
	if err != nil {
		return fmt.Errorf("listen for clients of the API server: %w", err)
	}
	ready()
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		client, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a client of the API server: %w", err)
		}
		all.Go(func() { p.serve(ctx, client) })
	}
}

func (p *Proxy) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := p.dial(ctx)
	if err != nil {
		p.log.Debug("no control plane can be reached", "err", err)
		if tcp, ok := client.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // the client sees a reset, and knows that nothing was read
		}
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { forward(server, client) })
	both.Go(func() { forward(client, server) })
	both.Wait()
}

// forward copies until from has no more, and says so to the other side.
func forward(to, from net.Conn) {
	_, err := io.Copy(to, from)
	tcp, ok := to.(*net.TCPConn)
	if err != nil || !ok || tcp.CloseWrite() != nil {
		to.Close()
		from.Close()
	}
}

func (p *Proxy) dial(ctx context.Context) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialLimit, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 4, Count: 2}}
	first := int(p.last.Load())
	var errs []error
	for i := range p.targets {
		index := (first + i) % len(p.targets)
		conn, err := dialer.DialContext(ctx, "tcp", p.targets[index].String())
		if err == nil {
			err = limitSilence(conn)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if p.last.Swap(int64(index)) != int64(index) {
			p.log.Info("another control plane answers now", "address", p.targets[index])
		}
		return conn, nil
	}
	return nil, errors.Join(errs...)
}

func limitSilence(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	})
	return errors.Join(err, set)
}
