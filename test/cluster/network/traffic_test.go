package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// dialer is who connects from where.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// traffic is new connections at a steady rate, and some that last. None may fail.
type traffic struct {
	name    string
	dial    dialer
	address string
	rate    int

	stop  context.CancelFunc
	start time.Time
	done  sync.WaitGroup

	mu       sync.Mutex
	finished int
	messages int
	slowest  time.Duration
	failures []string
}

const (
	lasting = 4 // connections from begin to end
	// between messages on one of them
	pace = 20 * time.Millisecond
	// limit is how long one exchange may take while both cores are busy starting
	// Kubernetes.
	limit = 20 * time.Second
)

func startTraffic(t *testing.T, name string, dial dialer, address string, rate int) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w := &traffic{name: name, dial: dial, address: address, rate: rate, stop: cancel, start: time.Now()}
	t.Cleanup(func() { cancel(); w.done.Wait() })
	for i := range lasting {
		w.done.Go(func() { w.note(fmt.Sprintf("lasting connection %d", i+1), w.last(ctx)) })
	}
	w.done.Go(func() { w.connections(ctx) })
	cluster.Eventually(t, patience, name+" to be under way", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.finished < 100 || w.messages < 100 {
			return fmt.Errorf("%d connections, %d messages so far; failed: %v", w.finished, w.messages, w.failures)
		}
		return nil
	})
	return w
}

// connections begins them at the rate, whether or not those before have ended.
func (w *traffic) connections(ctx context.Context) {
	steadily(ctx, w.rate, func(int) {
		w.done.Go(func() { w.note("connection", w.once(context.WithoutCancel(ctx))) })
	}, func(time.Duration) {})
}

// steadily calls f so many times per second until ctx ends. When it is late, as on a
// machine whose cores are all busy, it says so and makes up for it.
func steadily(ctx context.Context, rate int, f func(i int), late func(time.Duration)) {
	const pace = 5 * time.Millisecond
	tick := time.NewTicker(pace)
	defer tick.Stop()
	start := time.Now()
	last := start
	for done := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		late(time.Since(last) - pace)
		last = time.Now()
		for due := int(time.Since(start).Seconds() * float64(rate)); done < due; done++ {
			f(done)
		}
	}
}

func (w *traffic) once(ctx context.Context) error {
	start := time.Now()
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := exchange(conn, bufio.NewReader(conn), 1); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished++
	w.slowest = max(w.slowest, time.Since(start))
	return nil
}

// last holds a connection until the traffic ends.
func (w *traffic) last(ctx context.Context) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := exchange(conn, in, n); err != nil {
			return fmt.Errorf("message %d: %w", n, err)
		}
		w.mu.Lock()
		w.messages++
		w.mu.Unlock()
	}
}

func (w *traffic) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return w.dial(ctx, "tcp", w.address)
}

// exchange sends a number and expects it back.
func exchange(conn net.Conn, in *bufio.Reader, n int) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, n); err != nil {
		return err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, fmt.Sprintf("%d ", n)) {
		return fmt.Errorf("%d came back as %q", n, line)
	}
	return nil
}

func (w *traffic) note(what string, err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf("%.2f s after the begin, %s: %v", time.Since(w.start).Seconds(), what, err))
}

// check ends the traffic and asserts that nobody noticed anything.
func (w *traffic) check(t *testing.T) {
	t.Helper()
	w.stop()
	w.done.Wait()
	took := time.Since(w.start)
	t.Logf("%s: %d connections and %d messages in %.1f s, the slowest connection took %s", w.name, w.finished, w.messages, took.Seconds(), w.slowest.Round(time.Millisecond))
	if len(w.failures) > 0 {
		t.Errorf("%s: %d failed:\n  %s", w.name, len(w.failures), strings.Join(w.failures[:min(10, len(w.failures))], "\n  "))
	}
	if most := int(took.Seconds() * float64(w.rate)); w.finished < most*3/4 {
		t.Errorf("%s: only %d of %d connections were made: that proves little", w.name, w.finished, most)
	}
}

// proof that the check fails when it should.
func TestTrafficNoticesARefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.Map
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(conn, true)
			go func() {
				in := bufio.NewScanner(conn)
				for in.Scan() {
					fmt.Fprintln(conn, in.Text(), "server")
				}
			}()
		}
	}()
	w := startTraffic(t, "loopback", (&net.Dialer{}).DialContext, l.Addr().String(), 200)
	l.Close()
	open.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
	cluster.Eventually(t, patience, "the failures to be noticed", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		refused := slices.ContainsFunc(w.failures, func(s string) bool { return strings.Contains(s, "refused") })
		cut := slices.ContainsFunc(w.failures, func(s string) bool { return strings.Contains(s, "lasting connection") })
		if !refused || !cut {
			return errors.New("noticed so far: " + strings.Join(w.failures, ", "))
		}
		return nil
	})
}
