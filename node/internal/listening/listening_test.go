package listening

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestWaitsForTheServer(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	address := server.Listener.Addr().String()
	server.Listener.Close()

	done := make(chan error, 1)
	go func() { done <- Wait(t.Context(), address) }()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	server.StartTLS()
	defer server.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("did not notice the server")
	}
}

func TestEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Wait(ctx, l.Addr().String()); err == nil {
		t.Error("found a server where there is none")
	}
}
