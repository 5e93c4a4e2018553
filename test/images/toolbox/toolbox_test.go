package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stdout returns what f prints.
func stdout(t *testing.T, f func() error) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	saved := os.Stdout
	os.Stdout = w
	printed := make(chan string)
	go func() {
		data, _ := io.ReadAll(r)
		printed <- string(data)
	}()
	err = f()
	os.Stdout = saved
	w.Close()
	return <-printed, err
}

func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startServer runs `serve` on four free ports of loopback.
func startServer(t *testing.T) (http, tcp, udp, stream string) {
	t.Helper()
	t.Setenv("POD_NAME", "pod-1")
	http, tcp, udp, stream = address(t), address(t), address(t), address(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, []string{"-http", http, "-tcp", tcp, "-udp", udp, "-stream", stream}) }()
	t.Cleanup(func() { cancel(); <-done })
	for _, a := range []string{http, tcp, stream} {
		waitListening(t, a)
	}
	return http, tcp, udp, stream
}

func waitListening(t *testing.T, address string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
		select {
		case <-deadline:
			t.Fatalf("nobody listens on %s", address)
		case <-tick.C:
		}
	}
}

func TestServersSayWhoTheyAre(t *testing.T) {
	web, tcp, udp, _ := startServer(t)
	for name, f := range map[string]func() error{
		"get": func() error { return get(t.Context(), []string{"http://" + web + "/x"}) },
		"tcp": func() error { return dial(t.Context(), []string{"-send", "ping", "tcp", tcp}) },
		"udp": func() error { return dial(t.Context(), []string{"-send", "ping", "udp", udp}) },
	} {
		out, err := stdout(t, f)
		if err != nil || !strings.Contains(out, "pod-1") || !strings.Contains(out, "127.0.0.1") {
			t.Errorf("%s prints %q, %v", name, out, err)
		}
	}
}

func TestGetReportsFailureOfTheServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.NotFoundHandler())
	if _, err := stdout(t, func() error { return get(t.Context(), []string{"http://" + l.Addr().String()}) }); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("get of a missing page: %v", err)
	}
}

func TestStreamCountsWhatComesBack(t *testing.T) {
	_, _, _, addr := startServer(t)
	out, err := stdout(t, func() error {
		return stream(t.Context(), []string{"-interval", "5ms", "-duration", "300ms", addr})
	})
	if err != nil || !strings.Contains(out, "gaps=0 duplicates=0") || strings.Contains(out, "received=0") {
		t.Errorf("stream prints %q, %v", out, err)
	}
}

func TestStreamNoticesALostConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		io.CopyN(conn, conn, 2)
		conn.Close()
	}()
	_, err = stdout(t, func() error {
		return stream(t.Context(), []string{"-interval", "5ms", "-duration", "10s", l.Addr().String()})
	})
	if err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("stream over a connection that breaks: %v", err)
	}
}

func TestTallyFindsGapsAndDuplicates(t *testing.T) {
	tally := tally{last: time.Now(), sent: 5}
	out, _ := stdout(t, func() error {
		for _, n := range []int{1, 2, 4, 4, 5} {
			tally.count(n, time.Hour)
		}
		return nil
	})
	if tally.gaps != 1 || tally.duplicates != 1 || tally.verdict() == nil || !strings.Contains(out, "gap: expected 3, got 4") {
		t.Errorf("%+v after a gap and a duplicate; printed %q", tally, out)
	}
}

func TestWriteAndCat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := write(t.Context(), []string{"-sync", path, "some", "text"}); err != nil {
		t.Fatal(err)
	}
	if out, err := stdout(t, func() error { return cat(t.Context(), []string{path}) }); err != nil || out != "some text\n" {
		t.Errorf("cat prints %q, %v", out, err)
	}
}

func TestUnknownCommandShowsUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"frobnicate"}, {"get"}, {"dial", "tcp"}, {"cat"}} {
		if err := dispatch(t.Context(), args); !errors.Is(err, errUsage) {
			t.Errorf("toolbox %v: %v", args, err)
		}
	}
	if u := usage(); !strings.Contains(u, "stream") || !strings.Contains(u, "burn") {
		t.Errorf("usage:\n%s", u)
	}
}
