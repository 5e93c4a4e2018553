// Command hello is the example workload: a small HTTP server that says who it
// is, so that one can see which pod, node and version answered.
//
// It answers plain text, or JSON to those who ask for it (Accept:
// application/json or ?format=json). The message comes from the file named by
// MESSAGE_FILE, read anew at each request so that a changed ConfigMap shows
// without a restart, or from MESSAGE. POD_NAME, NODE_NAME and VERSION come from
// the environment. GET /healthz is for probes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	defaultAddress = ":8080"
	defaultMessage = "Hello from bothy"
	// drainTime is how long running requests may take once the pod is told to
	// stop; Kubernetes kills it 30 s after that by default.
	drainTime = 10 * time.Second
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, log, os.Getenv); err != nil {
		log.Error("hello ended", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, env func(string) string) error {
	address := env("LISTEN")
	if address == "" {
		address = defaultAddress
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	srv := &http.Server{Handler: handler(env), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	log.Info("listening", "address", l.Addr().String())

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	log.Info("stopped")
	return nil
}

// greeting is the answer.
type greeting struct {
	Message string `json:"message"`
	Pod     string `json:"pod"`
	Node    string `json:"node"`
	Version string `json:"version"`
	// Remote is the address the request came from, which shows whether the
	// network keeps the client's address.
	Remote string `json:"remote"`
	Path   string `json:"path"`
}

func handler(env func(string) string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		g := greet(r, env)
		if wantsJSON(r) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(g) // the client may have gone
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%s\npod: %s\nnode: %s\nversion: %s\nremote: %s\n", g.Message, g.Pod, g.Node, g.Version, g.Remote)
	})
	return mux
}

func greet(r *http.Request, env func(string) string) greeting {
	pod := env("POD_NAME")
	if pod == "" {
		pod, _ = os.Hostname() // empty is a fair answer too
	}
	return greeting{
		Message: message(env), Pod: pod, Node: env("NODE_NAME"),
		Version: env("VERSION"), Remote: r.RemoteAddr, Path: r.URL.Path,
	}
}

func message(env func(string) string) string {
	if path := env("MESSAGE_FILE"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return "no message: " + err.Error()
		}
		return strings.TrimSpace(string(data))
	}
	if m := env("MESSAGE"); m != "" {
		return m
	}
	return defaultMessage
}

func wantsJSON(r *http.Request) bool {
	return r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json")
}
