// Package fakeapi is an API server small enough for unit tests: discovery,
// server-side apply with field managers (the API server's own implementation and
// schemas), reads, lists and watches of objects or of their metadata, dry runs,
// deletion with finalizers, generations, and a record of every request. It has
// no admission, no defaults and no controllers, but for a status of Deployments.
// It is used by tests only; the integration suite runs the real one.
//
// Map: fakeapi.go (what tests do to it), serve.go (HTTP), store.go (objects and
// their history), fields.go (who set what), watch.go.
package fakeapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/managedfields"
)

// Kind is a kind that the server knows from the start.
type Kind struct {
	GroupVersion, Kind, Resource string
	Namespaced                   bool
}

// Kinds are the built-in ones.
var Kinds = []Kind{
	{"v1", "Namespace", "namespaces", false},
	{"v1", "ConfigMap", "configmaps", true},
	{"v1", "Secret", "secrets", true},
	{"v1", "Service", "services", true},
	{"v1", "ServiceAccount", "serviceaccounts", true},
	{"apps/v1", "Deployment", "deployments", true},
	{"batch/v1", "Job", "jobs", true},
	{"scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", false},
	{"policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true},
	{"apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false},
}

// Server is a fake API server.
type Server struct {
	URL string

	server *httptest.Server

	mu       sync.Mutex
	kinds    []Kind
	managers map[schema.GroupVersionKind]*managedfields.FieldManager
	objects  map[string]map[string]any // by path; never changed in place
	version  int64
	history  []event
	oldest   int64         // watches from before it are told to list anew
	changed  chan struct{} // closed and replaced with every event
	cut      chan struct{} // closed and replaced to end all watches
	requests []string
	slow     func(method, path string) time.Duration
	// refuse, if set, may answer a write with an error.
	refuse func(method, path string, body map[string]any) *metav1.Status
	// notReady decides what status a Deployment gets.
	notReady map[string]bool
	down     bool
}

// New starts a server with the namespaces default and kube-system.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		kinds: slices.Clone(Kinds), objects: map[string]map[string]any{}, notReady: map[string]bool{},
		managers: map[schema.GroupVersionKind]*managedfields.FieldManager{},
		changed:  make(chan struct{}), cut: make(chan struct{}),
	}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.server.URL
	t.Cleanup(func() {
		s.Cut()
		s.server.CloseClientConnections()
		s.server.Close()
	})
	for _, ns := range []string{"default", "kube-system"} {
		s.Put("/api/v1/namespaces/"+ns, map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}})
	}
	s.TakeRequests()
	return s
}

// Kubeconfig writes a kubeconfig for the server.
func (s *Server) Kubeconfig(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}]}`, s.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Down makes every request fail with 503 and ends all watches, or ends that.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	s.down = down
	s.mu.Unlock()
	s.Cut()
}

// Cut ends all watches, as when connections break.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.cut)
	s.cut = make(chan struct{})
}

// Compact forgets the history: watches that want to resume get 410.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = nil
	s.version++
	s.oldest = s.version
}

// Refuse lets f answer writes; nil accepts them all.
func (s *Server) Refuse(f func(method, path string, body map[string]any) *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// Slow holds back the answers to requests that were served by what f says; nil
// ends that.
func (s *Server) Slow(f func(method, path string) time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = f
}

// SetReady decides whether the Deployments of this name are healthy.
func (s *Server) SetReady(name string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notReady[name] = !ready
	for path, o := range s.objects {
		if strings.HasSuffix(path, "/deployments/"+name) {
			s.store(path, runtime.DeepCopyJSON(o))
		}
	}
}

// SetStatus replaces the status of an object.
func (s *Server) SetStatus(path string, status map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := runtime.DeepCopyJSON(s.objects[path])
	o["status"] = decoded(status)
	s.store(path, o)
}

// Get returns an object, nil if there is none. It must not be changed.
func (s *Server) Get(path string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[path]
}

// Peek is Get for functions given to Refuse.
func (s *Server) Peek(path string) map[string]any { return s.objects[path] }

// Put replaces an object, as a field manager called somebody would.
func (s *Server) Put(path string, o map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, status := s.update(path, decoded(o), "somebody", false); status != nil {
		panic("fakeapi: put " + path + ": " + status.Message)
	}
}

// Edit changes an object as the given field manager, by an update.
func (s *Server) Edit(path, manager string, change func(u *unstructured.Unstructured)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(s.objects[path])}
	if u.Object == nil {
		panic("fakeapi: edit " + path + ": not found")
	}
	change(u)
	if _, status := s.update(path, u.Object, manager, false); status != nil {
		panic("fakeapi: edit " + path + ": " + status.Message)
	}
}

// Apply applies an object as the given field manager, by force.
func (s *Server) Apply(path, manager string, o map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, status := s.apply(path, decoded(o), manager, false); status != nil {
		panic("fakeapi: apply " + path + ": " + status.Message)
	}
}

// Delete removes an object as somebody else would.
func (s *Server) Delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(path)
}

// Paths lists all objects but the inventory and the namespaces of the start.
func (s *Server) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for path := range s.objects {
		switch path {
		case "/api/v1/namespaces/default", "/api/v1/namespaces/kube-system", "/api/v1/namespaces/bothy-system", "/api/v1/namespaces/bothy-system/configmaps/inventory-site":
			continue
		}
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// TakeRequests returns the requests since the last call, as "METHOD path"; a
// watch is a WATCH, a dry run a DRYRUN.
func (s *Server) TakeRequests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.requests
	s.requests = nil
	return out
}

// decoded is a copy of o as it would come over the wire.
func decoded(o map[string]any) map[string]any {
	text, err := json.Marshal(o)
	if err != nil {
		panic("fakeapi: " + err.Error())
	}
	var out map[string]any
	if err := utiljson.Unmarshal(text, &out); err != nil {
		panic("fakeapi: " + err.Error())
	}
	return out
}
