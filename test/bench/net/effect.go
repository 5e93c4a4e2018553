package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/test/cluster"
)

// effects measures how long after the API server's answer an update of an EndpointSlice
// is in force: one side after the other, the others stopped.
func (b *bench) effects(ctx context.Context, n int) error {
	for _, s := range b.proxied() {
		if !b.side(s.name) {
			continue
		}
		updates := b.updates
		if s.name != ours {
			updates = max(updates/5, 5) // each takes a second or more
		}
		err := b.paused(s, func() error { return b.effect(ctx, s, n, updates) })
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// effect moves a Service to and fro between two servers, while a client connects
// to it every millisecond.
func (b *bench) effect(ctx context.Context, s *side, n, updates int) error {
	w, err := b.load.watch(s.pods[clientPod], b.moving, loads["crr"].port)
	if err != nil {
		return err
	}
	defer w.stop()
	servers := []struct{ id, ip string }{{"s", s.ips[serverPod]}, {"o", s.ips[otherPod]}}
	if err := b.site.setBackends(ctx, moving, loads["crr"].port, []string{servers[0].ip}); err != nil {
		return err
	}
	if err := w.settled(ctx, servers[0].id); err != nil {
		return err
	}
	for i := range updates {
		old, next := servers[i%2], servers[(i+1)%2]
		since := w.mark()
		if err := b.site.setBackends(ctx, moving, loads["crr"].port, []string{next.ip}); err != nil {
			return err
		}
		acknowledged := monotonic()
		if err := w.settled(ctx, next.id); err != nil {
			return err
		}
		first, last, refused := w.between(since, old.id, next.id)
		b.report.effect(s.name, n, milliseconds(first-acknowledged), milliseconds(last-acknowledged), refused)
	}
	progress("%-9s %d Services: %d updates of an EndpointSlice in force", s.name, n, updates)
	return b.site.setBackends(ctx, moving, loads["crr"].port, []string{servers[0].ip})
}

func milliseconds(ns int64) float64 { return max(0, float64(ns)/1e6) }

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}

// connection is one of the watcher's: when it was begun and who answered, "-" for
// nobody.
type connection struct {
	begun int64
	id    string
}

// watcher is a running `netload watch`.
type watcher struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	seen []connection
	err  error
}

func (n netload) watch(ns *cluster.Namespace, ip string, port int32) (*watcher, error) {
	w := &watcher{cmd: exec.Command(n.path, "watch", ip, strconv.Itoa(int(port)))}
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := ns.Start(w.cmd); err != nil {
		return nil, fmt.Errorf("watch %s: %w", net.JoinHostPort(ip, strconv.Itoa(int(port))), err)
	}
	go w.read(out)
	return w, nil
}

func (w *watcher) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var c connection
		_, err := fmt.Sscan(lines.Text(), &c.begun, &c.id)
		w.mu.Lock()
		if err != nil {
			w.err = fmt.Errorf("decode %q: %w", lines.Text(), err)
		}
		w.seen = append(w.seen, c)
		w.mu.Unlock()
	}
}

func (w *watcher) stop() {
	_ = w.cmd.Process.Kill() // it does not end by itself
	_ = w.cmd.Wait()
}

// mark is a point to look back to.
func (w *watcher) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

// settled waits until so many connections in a row were answered by the one with the
// id that an update must have come to its end.
func (w *watcher) settled(ctx context.Context, id string) error {
	const row = 100
	return poll(ctx, 5*time.Minute, "connections to be answered by "+id, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.seen) < row {
			return errors.Join(fmt.Errorf("%d connections so far", len(w.seen)), w.err)
		}
		for _, c := range w.seen[len(w.seen)-row:] {
			if c.id != id {
				return fmt.Errorf("one of the last is answered by %q", c.id)
			}
		}
		return nil
	})
}

// between finds the first connection after a mark that was answered by the new server,
// the last by the old, and how many by nobody.
func (w *watcher) between(since int, old, next string) (first, last int64, refused int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.seen[since:] {
		switch {
		case c.id == next && first == 0:
			first = c.begun
		case c.id == old:
			last = c.begun
		case c.id == "-":
			refused++
		}
	}
	w.seen = w.seen[:0]
	return first, last, refused
}

// poll is faster than cluster.Poll.
func poll(ctx context.Context, most time.Duration, what string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
