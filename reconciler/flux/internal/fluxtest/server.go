// Package fluxtest is an API server for tests of the controllers of the Flux
// API. It is package fakeapi with what controllers need besides: the status
// subresource, lists of objects by their kind, and a record of requests that
// tells a write of the status from a write of the object.
package fluxtest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/bothy-os/bothy/reconciler/internal/fakeapi"
)

// Server is the API server.
type Server struct {
	*fakeapi.Server
	// URL is that of this server; the one of fakeapi knows less.
	URL string

	mu       sync.Mutex
	requests []string
}

// New starts a server.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{Server: fakeapi.New(t)}
	target, err := url.Parse(s.Server.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: nameList,
		FlushInterval:  -1,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		if r.URL.Query().Get("sendInitialEvents") != "" {
			// The client lists instead.
			answer(w, http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents is not supported")
			return
		}
		if !s.patchStatus(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	s.URL = front.URL
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	return s
}

func (s *Server) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	verb := r.Method
	if r.URL.Query().Get("watch") != "" {
		verb = "WATCH"
	}
	s.requests = append(s.requests, verb+" "+r.URL.Path)
}

// Writes returns the requests so far that write to a path with the given part,
// and forgets all requests.
func (s *Server) Writes(part string) []string {
	return slices.DeleteFunc(s.Take(), func(request string) bool {
		read := strings.HasPrefix(request, "GET ") || strings.HasPrefix(request, "WATCH ")
		return read || !strings.Contains(request, part)
	})
}

// Take returns the requests so far and forgets them.
func (s *Server) Take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.requests
	s.requests = nil
	return out
}

// Kubeconfig writes a kubeconfig for the server.
func (s *Server) Kubeconfig(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "` + s.URL + `"}}]
users: [{name: test}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// patchStatus merges a patch into the status of an object and leaves the rest
// alone. It reports whether the request was one.
func (s *Server) patchStatus(w http.ResponseWriter, r *http.Request) bool {
	path, ok := strings.CutSuffix(r.URL.Path, "/status")
	if !ok || r.Method != http.MethodPatch {
		return false
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	live := s.Get(path)
	if live == nil {
		answer(w, http.StatusNotFound, "NotFound", path)
		return true
	}
	var patch struct {
		Status json.RawMessage `json:"status"`
	}
	status, err := json.Marshal(live["status"])
	if err == nil {
		err = json.Unmarshal(raw, &patch)
	}
	if live["status"] == nil {
		status = []byte("{}")
	}
	if err == nil {
		status, err = jsonpatch.MergePatch(status, patch.Status)
	}
	next := map[string]any{}
	if err == nil {
		err = json.Unmarshal(status, &next)
	}
	if err != nil {
		answer(w, http.StatusBadRequest, "BadRequest", err.Error())
		return true
	}
	s.SetStatus(path, next)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.Get(path))
	return true
}

// nameList gives a list the kind that typed clients want.
func nameList(r *http.Response) error {
	if r.Request.Method != http.MethodGet || r.Request.URL.Query().Get("watch") != "" ||
		strings.Contains(r.Request.Header.Get("Accept"), "PartialObjectMetadata") {
		return nil
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var list map[string]any
	if json.Unmarshal(raw, &list) == nil && list["kind"] == "PartialObjectMetadataList" {
		delete(list, "kind")
		delete(list, "apiVersion")
		if raw, err = json.Marshal(list); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	r.Header.Del("Content-Length")
	return nil
}

func answer(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message})
}
