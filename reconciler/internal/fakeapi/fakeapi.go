// Package fakeapi is an API server small enough for unit tests: discovery,
// server-side apply without merging, reads, lists of metadata, deletes, and a
// record of every request. It is used by tests only; the integration suite runs
// the real one.
package fakeapi

import (
	"crypto/sha256"
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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	{"scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", false},
	{"policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true},
	{"apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false},
}

// Server is a fake API server.
type Server struct {
	URL string

	mu       sync.Mutex
	server   *httptest.Server
	kinds    []Kind
	objects  map[string]map[string]any // by path
	version  int
	requests []string
	// Refuse, if set, may answer a write with an error.
	refuse func(method, path string, body map[string]any) *metav1.Status
	// ready decides what status a Deployment gets.
	notReady map[string]bool
	down     bool
}

// New starts a server with the namespaces default and kube-system.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{kinds: slices.Clone(Kinds), objects: map[string]map[string]any{}, notReady: map[string]bool{}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.server.URL
	t.Cleanup(s.server.Close)
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

// Down makes every request fail with 503, or ends that.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Refuse lets f answer writes; nil accepts them all.
func (s *Server) Refuse(f func(method, path string, body map[string]any) *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// SetReady decides whether the Deployment of this name is healthy.
func (s *Server) SetReady(name string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notReady[name] = !ready
	for path, o := range s.objects {
		if strings.HasSuffix(path, "/deployments/"+name) {
			s.store(path, o)
		}
	}
}

// Get returns an object, nil if there is none.
func (s *Server) Get(path string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[path]
}

// Put writes an object as somebody else would.
func (s *Server) Put(path string, o map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(path, o)
}

// Delete removes an object as somebody else would.
func (s *Server) Delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, path)
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

// TakeRequests returns the requests since the last call, as "METHOD path".
func (s *Server) TakeRequests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.requests
	s.requests = nil
	return out
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	if s.down {
		fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "starting")
		return
	}
	if s.discovery(w, r.URL.Path) {
		return
	}
	var body map[string]any
	if r.Method == http.MethodPatch || r.Method == http.MethodPost || r.Method == http.MethodPut {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
			return
		}
	}
	if s.refuse != nil && r.Method != http.MethodGet {
		if status := s.refuse(r.Method, r.URL.Path, body); status != nil {
			status.Kind, status.APIVersion, status.Status = "Status", "v1", "Failure"
			reply(w, int(status.Code), status)
			return
		}
	}
	switch r.Method {
	case http.MethodGet:
		s.get(w, r)
	case http.MethodPatch:
		s.apply(w, r.URL.Path, body)
	case http.MethodPost:
		name, _ := meta(body)["name"].(string)
		path := r.URL.Path + "/" + name
		if s.objects[path] != nil {
			fail(w, http.StatusConflict, metav1.StatusReasonAlreadyExists, "exists")
			return
		}
		s.apply(w, path, body)
	case http.MethodPut:
		live := s.objects[r.URL.Path]
		if live == nil || meta(live)["resourceVersion"] != meta(body)["resourceVersion"] {
			fail(w, http.StatusConflict, metav1.StatusReasonConflict, "changed")
			return
		}
		s.apply(w, r.URL.Path, body)
	case http.MethodDelete:
		if s.objects[r.URL.Path] == nil {
			fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
			return
		}
		delete(s.objects, r.URL.Path)
		for path := range s.objects {
			if strings.HasPrefix(path, r.URL.Path+"/") {
				delete(s.objects, path)
			}
		}
		reply(w, http.StatusOK, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Success"})
	}
}

func (s *Server) discovery(w http.ResponseWriter, path string) bool {
	gv, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		if gv, ok = strings.CutPrefix(path, "/api/"); !ok {
			return false
		}
	}
	parts := strings.Split(gv, "/")
	if len(parts) != 1 && (len(parts) != 2 || !strings.HasPrefix(path, "/apis/")) {
		return false
	}
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
	for _, k := range s.kinds {
		if k.GroupVersion == gv {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: k.Resource, Kind: k.Kind, Namespaced: k.Namespaced})
		}
	}
	if len(list.APIResources) == 0 {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "no such group version")
		return true
	}
	reply(w, http.StatusOK, list)
	return true
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	if o := s.objects[r.URL.Path]; o != nil {
		reply(w, http.StatusOK, shape(r, o))
		return
	}
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	isList := slices.ContainsFunc(s.kinds, func(k Kind) bool { return k.Resource == resource })
	if !isList {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
		return
	}
	key, value, _ := strings.Cut(r.URL.Query().Get("labelSelector"), "=")
	items := []any{}
	for path, o := range s.objects {
		labels, _ := meta(o)["labels"].(map[string]any)
		if strings.Contains(path, "/"+resource+"/") && (key == "" || labels[key] == value) {
			items = append(items, shape(r, o))
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
		"metadata": map[string]any{"resourceVersion": fmt.Sprint(s.version)}, "items": items,
	})
}

func shape(r *http.Request, o map[string]any) any {
	if !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata") {
		return o
	}
	return map[string]any{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": o["metadata"]}
}

// apply replaces what was there; a namespace must exist.
func (s *Server) apply(w http.ResponseWriter, path string, body map[string]any) {
	if _, rest, ok := strings.Cut(path, "/namespaces/"); ok {
		if ns, _, inside := strings.Cut(rest, "/"); inside && s.objects["/api/v1/namespaces/"+ns] == nil {
			fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("namespaces %q not found", ns))
			return
		}
	}
	s.store(path, body)
	reply(w, http.StatusOK, s.objects[path])
}

// store writes an object with the metadata and status that a cluster gives it.
func (s *Server) store(path string, body map[string]any) {
	old := s.objects[path]
	m := meta(body)
	generation := int64(1)
	if old != nil {
		om := meta(old)
		m["uid"] = om["uid"]
		generation, _ = om["generation"].(int64)
		if digest(old) != digest(body) {
			generation++
		}
	} else {
		m["uid"] = fmt.Sprintf("uid-%d", s.version)
	}
	kind, _ := body["kind"].(string)
	switch kind {
	case "Deployment":
		m["generation"] = generation
		available := "True"
		name, _ := m["name"].(string)
		replicas := int64(1)
		if s.notReady[name] {
			available, replicas = "False", 0
		}
		body["status"] = map[string]any{
			"observedGeneration": generation, "replicas": int64(1), "updatedReplicas": int64(1), "readyReplicas": replicas, "availableReplicas": replicas,
			"conditions": []any{map[string]any{"type": "Available", "status": available}, map[string]any{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}},
		}
	case "Namespace":
		body["status"] = map[string]any{"phase": "Active"}
	case "PodDisruptionBudget":
		m["generation"] = generation
		body["status"] = map[string]any{"observedGeneration": generation, "currentHealthy": int64(1), "desiredHealthy": int64(1)}
	case "CustomResourceDefinition":
		m["generation"] = generation
		s.define(body)
	}
	next, _ := json.Marshal(body)
	before, _ := json.Marshal(old)
	if old != nil && m["resourceVersion"] == nil {
		m["resourceVersion"] = meta(old)["resourceVersion"]
		next, _ = json.Marshal(body)
	}
	if string(next) != string(before) {
		s.version++
		m["resourceVersion"] = fmt.Sprint(s.version)
	}
	s.objects[path] = body
}

func (s *Server) define(crd map[string]any) {
	spec, _ := crd["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	kind, _ := names["kind"].(string)
	plural, _ := names["plural"].(string)
	group, _ := spec["group"].(string)
	versions, _ := spec["versions"].([]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)["name"].(string)
		k := Kind{group + "/" + version, kind, plural, spec["scope"] == "Namespaced"}
		if !slices.Contains(s.kinds, k) {
			s.kinds = append(s.kinds, k)
		}
	}
	crd["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Established", "status": "True"}, map[string]any{"type": "NamesAccepted", "status": "True"}}}
}

// digest is the content without what the cluster adds.
func digest(o map[string]any) [32]byte {
	c := map[string]any{}
	for k, v := range o {
		if k != "status" && k != "metadata" {
			c[k] = v
		}
	}
	text, _ := json.Marshal(c)
	return sha256.Sum256(text)
}

func meta(o map[string]any) map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	reply(w, code, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: message,
	})
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // fails when the client has gone
}
