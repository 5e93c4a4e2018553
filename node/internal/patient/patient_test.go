package patient

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// freePort returns an address on which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDialWaitsForAServerThatIsStarting(t *testing.T) {
	address := freePort(t)
	refused := make(chan struct{})
	attempts := 0
	dialer := &net.Dialer{ControlContext: func(context.Context, string, string, syscall.RawConn) error {
		if attempts++; attempts == 3 { // two were refused by now
			close(refused)
		}
		return nil
	}}
	go func() {
		<-refused
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := Dialer(dialer)(ctx, "tcp", address)
	if err != nil {
		t.Fatalf("dial: %v after %d attempts", err, attempts)
	}
	conn.Close()
	if attempts < 3 {
		t.Errorf("connected after %d attempts, before anybody listened", attempts)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Dialer(&net.Dialer{})(ctx, "tcp", freePort(t))
	if err == nil || ctx.Err() == nil {
		t.Errorf("dial returned %v with context %v", err, ctx.Err())
	}
}

func TestDialDoesNotRepeatOtherErrors(t *testing.T) {
	broken := errors.New("broken")
	attempts := 0
	dialer := &net.Dialer{ControlContext: func(context.Context, string, string, syscall.RawConn) error {
		attempts++
		return broken
	}}
	if _, err := Dialer(dialer)(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, broken) {
		t.Errorf("dial returned %v", err)
	}
	if attempts != 1 {
		t.Errorf("%d attempts, want 1", attempts)
	}
}
