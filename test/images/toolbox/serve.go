package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// identity is what servers answer with, so that a client can tell backends
// apart.
func identity() string {
	if pod := os.Getenv("POD_NAME"); pod != "" {
		return pod
	}
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

func serve(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	httpAddr := fs.String("http", ":8080", "HTTP address, empty for none")
	tcpAddr := fs.String("tcp", ":8081", "TCP echo address, empty for none")
	udpAddr := fs.String("udp", ":8082", "UDP echo address, empty for none")
	streamAddr := fs.String("stream", ":8083", "stream address, empty for none")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 4)
	start := func(addr string, f func(context.Context, string) error) {
		if addr != "" {
			go func() { ended <- f(ctx, addr) }()
		}
	}
	start(*httpAddr, serveHTTP)
	start(*tcpAddr, func(ctx context.Context, a string) error { return serveTCP(ctx, a, echoLines) })
	start(*udpAddr, serveUDP)
	start(*streamAddr, func(ctx context.Context, a string) error { return serveTCP(ctx, a, streamCounter) })
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// answer is the JSON a web request gets.
type answer struct {
	Identity string `json:"identity"`
	Remote   string `json:"remote"`
	Host     string `json:"host"`
	Path     string `json:"path"`
}

func serveHTTP(ctx context.Context, addr string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer{Identity: identity(), Remote: r.RemoteAddr, Host: r.Host, Path: r.URL.Path})
	})
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	return srv.ListenAndServe()
}

func serveTCP(ctx context.Context, addr string, handle func(context.Context, net.Conn)) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			handle(ctx, conn)
		})
	}
}

// echoLines answers each line with the identity, the client's address and the
// line itself.
func echoLines(_ context.Context, conn net.Conn) {
	in := bufio.NewScanner(conn)
	for in.Scan() {
		if _, err := fmt.Fprintf(conn, "%s %s %s\n", identity(), conn.RemoteAddr(), in.Text()); err != nil {
			return
		}
	}
}

func serveUDP(ctx context.Context, addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		// A reply that cannot be sent is lost, as datagrams are.
		_, _ = fmt.Fprintf(packetWriter{conn, from}, "%s %s %s", identity(), from, buf[:n])
	}
}

type packetWriter struct {
	conn net.PacketConn
	to   net.Addr
}

func (w packetWriter) Write(p []byte) (int, error) { return w.conn.WriteTo(p, w.to) }
