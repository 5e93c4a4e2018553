package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func environment(kv map[string]string) func(string) string {
	return func(k string) string { return kv[k] }
}

func TestAnswersWithItsIdentity(t *testing.T) {
	h := handler(environment(map[string]string{"MESSAGE": "hi", "POD_NAME": "p1", "NODE_NAME": "n1", "VERSION": "7"}))

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/some/path", nil))
	for _, want := range []string{"hi\n", "pod: p1\n", "node: n1\n", "version: 7\n", "remote: 192.0.2.1:1234\n"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("text answer lacks %q:\n%s", want, w.Body)
		}
	}

	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/some/path?format=json", nil))
	var got greeting
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := greeting{Message: "hi", Pod: "p1", Node: "n1", Version: "7", Remote: "192.0.2.1:1234", Path: "/some/path"}
	if got != want {
		t.Errorf("JSON answer %+v, want %+v", got, want)
	}
}

func TestMessageFileIsReadAtEachRequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "message")
	h := handler(environment(map[string]string{"MESSAGE_FILE": path, "MESSAGE": "not this one"}))
	for _, text := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if !strings.HasPrefix(w.Body.String(), text+"\n") {
			t.Errorf("message file holds %q, the answer is:\n%s", text, w.Body)
		}
	}
}

func TestHealthz(t *testing.T) {
	w := httptest.NewRecorder()
	handler(environment(nil)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	if w.Code != http.StatusOK {
		t.Errorf("healthz answers %d", w.Code)
	}
}

func TestStopsWhenTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, slog.New(slog.DiscardHandler), environment(map[string]string{"LISTEN": "127.0.0.1:0"}))
	}()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("run returned %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("run did not return after its context ended")
	}
}
