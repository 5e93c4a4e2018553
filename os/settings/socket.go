package settings

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The protocol: whoever is connected gets the [Status] as a line of JSON, at once and after
// each change, and sends requests as lines of JSON. There are no answers but the status.

// Serve answers on a unix socket that only root can use, until ctx ends. It returns when
// the socket is there; what it serves ends with ctx.
func (e *Engine) Serve(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go e.serve(ctx, conn)
		}
	}()
	return nil
}

func (e *Engine) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { conn.Close() })
	if !fromRoot(conn) {
		return
	}
	go func() {
		defer cancel()
		for requests := json.NewDecoder(conn); ; {
			var r request
			if requests.Decode(&r) != nil {
				return
			}
			e.ask(ctx, r)
		}
	}()
	for out := json.NewEncoder(conn); ; {
		st, changed := e.Status()
		if out.Encode(st) != nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// fromRoot is a second lock behind the mode of the socket.
func fromRoot(conn net.Conn) bool {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return false
	}
	root := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		root = err == nil && int(cred.Uid) == os.Geteuid()
	})
	return err == nil && root
}

// Client talks to an engine in another process.
type Client struct {
	socket string
	log    *slog.Logger

	mu      sync.Mutex
	status  *Status
	conn    net.Conn
	changed chan struct{}
}

// NewClient returns a client of the engine behind a socket. It is connected while
// [Client.Run] runs.
func NewClient(socket string, log *slog.Logger) *Client {
	return &Client{socket: socket, log: log, changed: make(chan struct{})}
}

// reconnect is the pause before an engine that went away is looked for again.
const reconnect = 500 * time.Millisecond

// Run keeps the client connected until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := c.follow(ctx); err != nil && ctx.Err() == nil {
			c.log.Debug("the keeper of the machine's settings is away", "err", err)
		}
		c.set(nil, nil)
		select {
		case <-time.After(reconnect):
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *Client) follow(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for in := json.NewDecoder(conn); ; {
		st := &Status{}
		if err := in.Decode(st); err != nil {
			return err
		}
		c.set(st, conn)
	}
}

func (c *Client) set(st *Status, conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status, c.conn = st, conn
	close(c.changed)
	c.changed = make(chan struct{})
}

// Status returns what the engine said last, nil while it is away, and a channel that is
// closed when it says something else.
func (c *Client) Status() (*Status, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.changed
}

// Propose is that of [Engine]. What is sent to an engine that goes
// away is lost: its status says whether it has arrived.
func (c *Client) Propose(_ context.Context, p Proposal) { c.send(request{Propose: &p}) }

// Confirm is that of [Engine].
func (c *Client) Confirm(_ context.Context, hash string) { c.send(request{Confirm: hash}) }

// Forget is that of [Engine].
func (c *Client) Forget(context.Context) { c.send(request{Forget: true}) }

func (c *Client) send(r request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return
	}
	if err := json.NewEncoder(c.conn).Encode(r); err != nil {
		c.log.Debug("the keeper of the machine's settings was not reached", "err", err)
	}
}
