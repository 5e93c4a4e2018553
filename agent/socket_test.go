package agent

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func TestFollowersSeeEveryState(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the socket answers only to root")
	}
	socket := filepath.Join(t.TempDir(), "s.sock")
	var value atomic.Int64
	changed := make(chan chan struct{}, 1)
	changed <- make(chan struct{})
	next := func() <-chan struct{} { c := <-changed; changed <- c; return c }
	bump := func() {
		value.Add(1)
		c := <-changed
		changed <- make(chan struct{})
		close(c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	up := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", statusHandler(func() int64 { return value.Load() }, next))
	mux.HandleFunc("POST /v1/fail", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "because", http.StatusConflict) })
	go func() { ended <- serveSocket(ctx, socket, mux, func() { close(up) }) }()
	<-up
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st, err)
	}
	var seen []int64
	if err := follow(ctx, socket, "/v1/status", func(v int64) bool {
		seen = append(seen, v)
		bump()
		return v < 3
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 4 || seen[3] != 3 {
		t.Errorf("saw %v", seen)
	}
	if _, err := call(ctx, socket, http.MethodPost, "/v1/fail", nil); err == nil || !strings.Contains(err.Error(), "because") {
		t.Errorf("error text: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
