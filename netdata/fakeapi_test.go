package netdata

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fakeAPI answers list and watch for the few resources the wing reads, over
// real HTTP, so that client construction, probes and watches are tested too.
type fakeAPI struct {
	t      *testing.T
	server *httptest.Server

	mu      sync.Mutex
	version int
	events  int
	objects map[string]map[string]any // resource -> namespace/name -> object
	watches map[chan watchEvent]string
}

type watchEvent struct {
	Type   string `json:"type"`
	Object any    `json:"object"`
}

// resources maps a path's last element to what a list of it is called.
var resources = map[string]metav1.TypeMeta{
	"services":        {APIVersion: "v1", Kind: "Service"},
	"namespaces":      {APIVersion: "v1", Kind: "Namespace"},
	"nodes":           {APIVersion: "v1", Kind: "Node"},
	"pods":            {APIVersion: "v1", Kind: "Pod"},
	"networkpolicies": {APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
	"endpointslices":  {APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
}

func newFakeAPI(t *testing.T) *fakeAPI { return newFakeAPIAt(t, "127.0.0.1:0") }

func newFakeAPIAt(t *testing.T, addr string) *fakeAPI {
	a := &fakeAPI{t: t, version: 1, objects: map[string]map[string]any{}, watches: map[chan watchEvent]string{}}
	for r := range resources {
		a.objects[r] = map[string]any{}
	}
	a.start(addr)
	return a
}

func (a *fakeAPI) start(addr string) {
	a.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		a.t.Fatalf("listen for the fake API: %v", err)
	}
	a.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: a}}
	a.server.Start()
}

// stop cuts all connections, as a dead API server does.
func (a *fakeAPI) stop() {
	a.server.CloseClientConnections()
	go a.server.Close() // waits for watches, which end by themselves
}

func (a *fakeAPI) kubeconfig(dir string) string {
	path := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"http://%s"}}],
"users":[{"name":"u","user":{}}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}`, a.server.Listener.Addr())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// put creates or replaces an object.
func (a *fakeAPI) put(obj any) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	resource, meta := describe(a.t, obj)
	meta.ResourceVersion = fmt.Sprint(a.version)
	key := meta.Namespace + "/" + meta.Name
	event := watchEvent{"ADDED", obj}
	if a.objects[resource][key] != nil {
		event.Type = "MODIFIED"
	}
	a.objects[resource][key] = obj
	a.tell(resource, event)
}

func (a *fakeAPI) remove(obj any) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	resource, meta := describe(a.t, obj)
	meta.ResourceVersion = fmt.Sprint(a.version)
	delete(a.objects[resource], meta.Namespace+"/"+meta.Name)
	a.tell(resource, watchEvent{"DELETED", obj})
}

func describe(t *testing.T, obj any) (string, *metav1.ObjectMeta) {
	switch o := obj.(type) {
	case *corev1.Service:
		o.TypeMeta = resources["services"]
		return "services", &o.ObjectMeta
	case *corev1.Namespace:
		o.TypeMeta = resources["namespaces"]
		return "namespaces", &o.ObjectMeta
	case *corev1.Node:
		o.TypeMeta = resources["nodes"]
		return "nodes", &o.ObjectMeta
	case *corev1.Pod:
		o.TypeMeta = resources["pods"]
		return "pods", &o.ObjectMeta
	case *networkingv1.NetworkPolicy:
		o.TypeMeta = resources["networkpolicies"]
		return "networkpolicies", &o.ObjectMeta
	case *discoveryv1.EndpointSlice:
		o.TypeMeta = resources["endpointslices"]
		return "endpointslices", &o.ObjectMeta
	default:
		t.Fatalf("fake API: unknown object %T", obj)
		return "", nil
	}
}

// encode keeps later changes of the object out of what is being sent.
func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func (a *fakeAPI) tell(resource string, e watchEvent) {
	e.Object = encode(e.Object)
	for ch, r := range a.watches {
		if r == resource {
			ch <- e
		}
	}
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	resource := parts[len(parts)-1]
	if len(parts) > 1 && parts[len(parts)-2] == "nodes" {
		a.getNode(w, parts[len(parts)-1])
		return
	}
	if resource == "events" && r.Method == http.MethodPost {
		a.mu.Lock()
		a.events++
		a.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		w.Write([]byte(`{"kind":"Event","apiVersion":"v1"}`))
		return
	}
	if resource == "status" && r.Method == http.MethodPatch && len(parts) > 4 && parts[len(parts)-3] == "services" {
		a.patchStatus(w, r, parts[len(parts)-4]+"/"+parts[len(parts)-2])
		return
	}
	if _, ok := resources[resource]; !ok {
		http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"reason":"NotFound"}`, http.StatusNotFound)
		return
	}
	if r.URL.Query().Get("watch") != "" {
		a.watch(w, r, resource)
		return
	}
	if r.Method != http.MethodGet {
		http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":405}`, http.StatusMethodNotAllowed)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	items := []any{}
	for _, o := range a.objects[resource] {
		items = append(items, o)
	}
	tm := resources[resource]
	w.Write(encode(map[string]any{
		"apiVersion": tm.APIVersion, "kind": tm.Kind + "List", "items": items,
		"metadata": map[string]string{"resourceVersion": fmt.Sprint(a.version)},
	}))
}

// patchStatus applies a merge patch, provided that it is for the version there is.
func (a *fakeAPI) patchStatus(w http.ResponseWriter, r *http.Request, key string) {
	var patch struct {
		Metadata struct{ ResourceVersion string }
		Status   json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	svc, ok := a.objects["services"][key].(*corev1.Service)
	if !ok || svc.ResourceVersion != patch.Metadata.ResourceVersion {
		a.mu.Unlock()
		w.WriteHeader(http.StatusConflict)
		w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":409,"reason":"Conflict"}`))
		return
	}
	next := svc.DeepCopy()
	next.Status = corev1.ServiceStatus{}
	err := json.Unmarshal(patch.Status, &next.Status)
	a.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.put(next)
	w.Write(encode(next))
}

func (a *fakeAPI) getNode(w http.ResponseWriter, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.objects["nodes"]["/"+name]; o != nil {
		w.Write(encode(o))
		return
	}
	w.WriteHeader(http.StatusNotFound)
	w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"reason":"NotFound"}`))
}

func (a *fakeAPI) watch(w http.ResponseWriter, r *http.Request, resource string) {
	ch := make(chan watchEvent, 1000)
	a.mu.Lock()
	var first []watchEvent
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, o := range a.objects[resource] {
			first = append(first, watchEvent{"ADDED", encode(o)})
		}
		tm := resources[resource]
		first = append(first, watchEvent{"BOOKMARK", map[string]any{
			"apiVersion": tm.APIVersion, "kind": tm.Kind,
			"metadata": map[string]any{
				"resourceVersion": fmt.Sprint(a.version),
				"annotations":     map[string]string{"k8s.io/initial-events-end": "true"},
			},
		}})
	}
	a.watches[ch] = resource
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.watches, ch)
		a.mu.Unlock()
	}()
	enc := json.NewEncoder(w)
	for _, e := range first {
		if enc.Encode(e) != nil {
			return
		}
	}
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-ch:
			if enc.Encode(e) != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}
