package objects

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// api is as much of an API server as an Applier needs: it stores what is
// applied under its path and counts writes.
type api struct {
	mu      sync.Mutex
	objects map[string]map[string]any
	writes  []string
	refuse  string // a path part for which writes fail
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	status := func(code int, reason string) {
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code})
	}
	path := r.URL.Path
	if r.Method != http.MethodGet {
		if a.refuse != "" && strings.Contains(path, a.refuse) {
			status(http.StatusForbidden, "Forbidden")
			return
		}
		a.writes = append(a.writes, r.Method+" "+path)
	}
	switch r.Method {
	case http.MethodGet:
		if a.objects[path] == nil {
			status(http.StatusNotFound, "NotFound")
			return
		}
	case http.MethodPatch:
		if r.Header.Get("Content-Type") != "application/apply-patch+yaml" || r.URL.Query().Get("fieldManager") != FieldManager || r.URL.Query().Get("force") != "true" {
			status(http.StatusUnsupportedMediaType, "not a forced server-side apply")
			return
		}
		body, _ := io.ReadAll(r.Body)
		var obj map[string]any
		if err := json.Unmarshal(body, &obj); err != nil {
			status(http.StatusBadRequest, "BadRequest")
			return
		}
		meta := obj["metadata"].(map[string]any)
		meta["uid"], meta["resourceVersion"] = "u", "1"
		meta["managedFields"] = []any{map[string]any{"manager": FieldManager, "operation": "Apply"}}
		a.objects[path] = obj
	case http.MethodDelete:
		delete(a.objects, path)
		json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"})
		return
	}
	json.NewEncoder(w).Encode(a.objects[path])
}

func newAPI(t *testing.T) (*api, *Applier) {
	a := &api{objects: map[string]map[string]any{}}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	client, err := dynamic.NewForConfig(&rest.Config{Host: server.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return a, &Applier{Client: client, Log: slog.New(slog.DiscardHandler)}
}

const manifest = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: example.org/local
---
# only a comment
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: kube-system}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get]}
---
apiVersion: v1
kind: Namespace
metadata: {name: bothy-system}
`

const (
	classPath     = "/apis/storage.k8s.io/v1/storageclasses/local"
	rolePath      = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/reader"
	namespacePath = "/api/v1/namespaces/bothy-system"
	inventoryPath = "/api/v1/namespaces/bothy-system/configmaps/bootstrap-inventory"
)

func parse(t *testing.T, manifest string) []*unstructured.Unstructured {
	t.Helper()
	objs, err := Parse([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

func apply(t *testing.T, a *Applier, manifest string) {
	t.Helper()
	if err := a.Apply(t.Context(), parse(t, manifest)); err != nil {
		t.Fatal(err)
	}
}

func TestApplyWritesOnceAndInOrder(t *testing.T) {
	server, a := newAPI(t)
	apply(t, a, manifest)
	if want := []string{"PATCH " + namespacePath, "PATCH " + classPath, "PATCH " + rolePath, "PATCH " + inventoryPath}; !slices.Equal(server.writes, want) {
		t.Errorf("writes:\n%s", strings.Join(server.writes, "\n"))
	}
	server.writes = nil
	apply(t, a, manifest)
	if len(server.writes) > 0 {
		t.Errorf("a second start writes %v", server.writes)
	}
}

func TestApplyRepairsDrift(t *testing.T) {
	for name, drift := range map[string]func(map[string]map[string]any){
		"changed": func(o map[string]map[string]any) { o[classPath]["provisioner"] = "evil" },
		"removed": func(o map[string]map[string]any) { delete(o, rolePath) },
		"in a list": func(o map[string]map[string]any) {
			o[rolePath]["rules"].([]any)[0].(map[string]any)["verbs"] = []any{"get", "delete"}
		},
	} {
		server, a := newAPI(t)
		apply(t, a, manifest)
		drift(server.objects)
		server.writes = nil
		apply(t, a, manifest)
		if len(server.writes) != 1 {
			t.Errorf("%s: writes %v", name, server.writes)
		}
	}
}

func TestFieldRemovedFromTheManifestIsNoticed(t *testing.T) {
	server, a := newAPI(t)
	apply(t, a, manifest+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: kube-system}\ndata: {a: '1', b: '2'}\n")
	server.writes = nil
	apply(t, a, manifest+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: kube-system}\ndata: {a: '1'}\n")
	if len(server.writes) != 1 || !strings.HasSuffix(server.writes[0], "/configmaps/x") {
		t.Errorf("writes %v", server.writes)
	}
}

func TestWhatIsNoLongerAskedForIsRemoved(t *testing.T) {
	server, a := newAPI(t)
	apply(t, a, manifest)
	apply(t, a, "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
	if server.objects[classPath] != nil || server.objects[rolePath] != nil {
		t.Error("the storage class or the role is still there")
	}
	if server.objects[namespacePath] == nil {
		t.Error("a namespace was deleted, with all that is in it")
	}
}

func TestForeignObjectIsNotRemoved(t *testing.T) {
	server, a := newAPI(t)
	apply(t, a, manifest)
	meta := server.objects[classPath]["metadata"].(map[string]any)
	meta["managedFields"] = []any{map[string]any{"manager": "somebody"}}
	apply(t, a, "apiVersion: v1\nkind: Namespace\nmetadata: {name: bothy-system}\n")
	if server.objects[classPath] == nil {
		t.Error("an object that somebody else has taken over was deleted")
	}
}

func TestFailureDoesNotStopTheRestAndNothingIsPruned(t *testing.T) {
	server, a := newAPI(t)
	apply(t, a, manifest)
	delete(server.objects, classPath)
	delete(server.objects, namespacePath)
	server.refuse, server.writes = "storageclasses", nil
	err := a.Apply(t.Context(), parse(t, strings.Replace(manifest, "name: reader", "name: writer", 1)))
	if err == nil || !strings.Contains(err.Error(), "StorageClass local") {
		t.Errorf("error %v", err)
	}
	if server.objects[namespacePath] == nil {
		t.Error("the rest was not applied")
	}
	if server.objects[rolePath] == nil {
		t.Error("something was pruned although the apply failed")
	}
}

func TestParseErrors(t *testing.T) {
	for name, tc := range map[string]struct{ manifest, want string }{
		"no kind":       {"apiVersion: v1\nmetadata: {name: x}", "document 1"},
		"no name":       {"apiVersion: v1\nkind: ConfigMap", "metadata.name"},
		"second":        {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n---\nkind: X", "document 2"},
		"twice":         {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: x}", "twice"},
		"duplicate key": {"apiVersion: v1\nkind: Namespace\nkind: Namespace\nmetadata: {name: x}", "already"},
		"no object":     {"- a", "not an object"},
	} {
		if _, err := Parse([]byte(tc.manifest)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if objs, err := Parse(nil); err != nil || len(objs) != 0 {
		t.Errorf("nothing: %v %v", objs, err)
	}
}

func TestFillCABundle(t *testing.T) {
	objs := parse(t, `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec: {group: metrics.k8s.io, version: v1beta1, service: {name: metrics, namespace: kube-system}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.own.example.org}
spec: {group: own.example.org, version: v1, caBundle: b3du, service: {name: own, namespace: default}}
`)
	if err := FillCABundle(objs, []byte("ca")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"Y2E=", "b3du"} {
		if got, _, _ := unstructured.NestedString(objs[i].Object, "spec", "caBundle"); got != want {
			t.Errorf("%s: caBundle %q, want %q", objs[i].GetName(), got, want)
		}
	}
}

func TestSystemObjectsAreWellFormed(t *testing.T) {
	for _, ip := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, o := range System(netip.MustParseAddr(ip), 6443, "admins", "kubelet-client") {
			data, err := json.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(data)
			if err != nil || len(again) != 1 {
				t.Errorf("%s: %v", name(o), err)
			}
			if o.GetKind() == "EndpointSlice" {
				want := map[bool]string{true: "IPv6", false: "IPv4"}[strings.Contains(ip, ":")]
				if o.Object["addressType"] != want {
					t.Errorf("%s is of type %v", ip, o.Object["addressType"])
				}
			}
		}
	}
}

func TestContains(t *testing.T) {
	type m = map[string]any
	for name, tc := range map[string]struct {
		live, desired any
		want          bool
	}{
		"server adds fields":   {m{"a": "1", "b": "2"}, m{"a": "1"}, true},
		"missing":              {m{"b": "2"}, m{"a": "1"}, false},
		"number kinds":         {m{"a": int64(3)}, m{"a": float64(3)}, true},
		"other number":         {m{"a": int64(3)}, m{"a": float64(4)}, false},
		"shorter list":         {[]any{"a"}, []any{"a", "b"}, false},
		"longer list":          {[]any{"a", "b"}, []any{"a"}, false},
		"defaults inside list": {[]any{m{"a": "1", "d": "x"}}, []any{m{"a": "1"}}, true},
		"empty is absent":      {nil, m{}, true},
		"null is absent":       {"x", nil, true},
		"bool":                 {true, false, false},
	} {
		if got := contains(tc.live, tc.desired); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
