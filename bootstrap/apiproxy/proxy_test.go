package apiproxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// server answers each connection with its name and then with what it hears.
func server(t *testing.T, name string) (netip.AddrPort, func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop := func() { once.Do(func() { l.Close() }) }
	t.Cleanup(stop)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, name)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String()), stop
}

func start(t *testing.T, targets ...netip.AddrPort) (netip.AddrPort, func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- New(at, targets, slog.New(slog.DiscardHandler)).run(ctx, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return at, stop
}

func dial(t *testing.T, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// talk returns all that comes back for a text.
func talk(t *testing.T, at netip.AddrPort, text string) (string, error) {
	t.Helper()
	c := dial(t, at)
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	data, err := io.ReadAll(c)
	return string(data), err
}

func TestProxyGoesToTheNextWhenOneIsGone(t *testing.T) {
	a, stopA := server(t, "a:")
	b, _ := server(t, "b:")
	at, _ := start(t, a, b)
	if got, err := talk(t, at, "hello"); got != "a:hello" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	stopA()
	for range 2 {
		if got, err := talk(t, at, "hello"); got != "b:hello" || err != nil {
			t.Fatalf("after the first had gone: %q, %v", got, err)
		}
	}
}

func TestProxyResetsWhenNobodyIsThere(t *testing.T) {
	a, stop := server(t, "a:")
	stop()
	at, _ := start(t, a)
	if got, err := talk(t, at, "hello"); err == nil {
		t.Errorf("got %q from nobody", got)
	}
}

func TestProxyEndsItsConnections(t *testing.T) {
	a, _ := server(t, "a:")
	at, stop := start(t, a)
	c := dial(t, at)
	buf := make([]byte, 2)
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := c.Read(buf); err == nil {
		t.Error("the connection goes on")
	} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the connection was left open")
	}
}

func TestProxyWithoutControlPlane(t *testing.T) {
	err := New(netip.MustParseAddrPort("127.0.0.1:0"), nil, slog.New(slog.DiscardHandler)).run(t.Context(), func() {})
	if err == nil {
		t.Error("runs without knowing anybody")
	}
}
