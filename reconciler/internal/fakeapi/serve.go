package fakeapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	method := r.Method
	switch {
	case query.Get("watch") == "true" || query.Get("watch") == "1":
		method = "WATCH"
	case query.Get("dryRun") != "":
		method = "DRYRUN"
	}
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.requests = append(s.requests, method+" "+r.URL.Path)
	down, slow := s.down, s.slow
	s.mu.Unlock()
	switch {
	case down:
		fail(w, status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "starting"))
	case method == "WATCH":
		s.watch(w, r)
	default:
		answer, code := s.answer(r, method, body)
		if slow != nil {
			timer := time.NewTimer(slow(method, r.URL.Path))
			select {
			case <-timer.C:
			case <-r.Context().Done():
			}
		}
		reply(w, code, answer)
	}
}

// answer serves one request.
func (s *Server) answer(r *http.Request, method string, text []byte) (any, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer, code := s.discovery(r.URL.Path); answer != nil {
		return answer, code
	}
	if r.Method == http.MethodGet {
		return s.get(r)
	}
	var body map[string]any
	if len(text) > 0 && text[0] == '{' {
		if err := utiljson.Unmarshal(text, &body); err != nil {
			return problem(status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()))
		}
	}
	if s.refuse != nil {
		if refusal := s.refuse(method, r.URL.Path, body); refusal != nil {
			return problem(refusal)
		}
	}
	before := s.objects[r.URL.Path]
	o, refusal := s.write(r, method == "DRYRUN", body, text)
	switch {
	case refusal != nil:
		return problem(refusal)
	case o == nil:
		return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}, http.StatusOK
	case before == nil:
		return shape(r, o), http.StatusCreated
	}
	return shape(r, o), http.StatusOK
}

func (s *Server) write(r *http.Request, dryRun bool, body map[string]any, text []byte) (map[string]any, *metav1.Status) {
	path, manager := r.URL.Path, r.URL.Query().Get("fieldManager")
	switch r.Method {
	case http.MethodPost:
		name, _ := meta(body)["name"].(string)
		path += "/" + name
		if s.objects[path] != nil {
			return nil, status(http.StatusConflict, metav1.StatusReasonAlreadyExists, "exists")
		}
		return s.update(path, body, manager, dryRun)
	case http.MethodPut:
		if s.objects[path] == nil {
			return nil, notFound(path)
		}
		return s.update(path, body, manager, dryRun)
	case http.MethodDelete:
		return nil, s.requestDeletion(path, body, dryRun)
	case http.MethodPatch:
		if r.Header.Get("Content-Type") == string(types.ApplyPatchType) {
			return s.apply(path, body, manager, dryRun)
		}
		return s.patch(r, path, manager, text, dryRun)
	}
	return nil, status(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, r.Method)
}

// patch makes a JSON patch or a JSON merge patch.
func (s *Server) patch(r *http.Request, path, manager string, text []byte, dryRun bool) (map[string]any, *metav1.Status) {
	live := s.objects[path]
	if live == nil {
		return nil, notFound(path)
	}
	before, _ := json.Marshal(live)
	var after []byte
	var err error
	if r.Header.Get("Content-Type") == string(types.JSONPatchType) {
		var operations jsonpatch.Patch
		if operations, err = jsonpatch.DecodePatch(text); err == nil {
			after, err = operations.Apply(before)
		}
	} else {
		after, err = jsonpatch.MergePatch(before, text)
	}
	var body map[string]any
	if err == nil {
		err = utiljson.Unmarshal(after, &body)
	}
	if err != nil {
		return nil, status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err.Error())
	}
	return s.update(path, body, manager, dryRun)
}

func (s *Server) get(r *http.Request) (any, int) {
	if o := s.objects[r.URL.Path]; o != nil {
		return shape(r, o), http.StatusOK
	}
	in, ok := s.collection(r)
	if !ok {
		return problem(notFound(r.URL.Path))
	}
	items := []any{}
	for _, path := range s.sorted() {
		if o := s.objects[path]; in.has(path, o) {
			items = append(items, shape(r, o))
		}
	}
	return map[string]any{
		"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
		"metadata": map[string]any{"resourceVersion": fmt.Sprint(s.version)}, "items": items,
	}, http.StatusOK
}

func (s *Server) sorted() []string {
	var paths []string
	for path := range s.objects {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// selection is what a list or a watch is about.
type selection struct {
	prefix, resource, name string
	labels                 labels.Selector
}

// collection reads what a list or a watch asks for; false if there is no such
// resource.
func (s *Server) collection(r *http.Request) (selection, bool) {
	i := strings.LastIndex(r.URL.Path, "/")
	in := selection{prefix: r.URL.Path[:i], resource: r.URL.Path[i+1:], labels: labels.Everything()}
	if !slices.ContainsFunc(s.kinds, func(k Kind) bool {
		return k.Resource == in.resource && strings.HasPrefix(r.URL.Path, root(k.GroupVersion)+"/")
	}) {
		return in, false
	}
	if text := r.URL.Query().Get("labelSelector"); text != "" {
		in.labels, _ = labels.Parse(text)
	}
	in.name = strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	return in, true
}

// root is where the resources of a group version are.
func root(gv string) string {
	if strings.Contains(gv, "/") {
		return "/apis/" + gv
	}
	return "/api/" + gv
}

func (in selection) has(path string, o map[string]any) bool {
	rest, ok := strings.CutPrefix(path, in.prefix+"/")
	if !ok {
		return false
	}
	if !strings.Contains(in.prefix, "/namespaces/") {
		if inside, ok := strings.CutPrefix(rest, "namespaces/"); ok {
			if _, after, ok := strings.Cut(inside, "/"); ok {
				rest = after
			}
		}
	}
	name, ok := strings.CutPrefix(rest, in.resource+"/")
	if !ok || strings.Contains(name, "/") || in.name != "" && in.name != name {
		return false
	}
	return o != nil && in.labels.Matches(labelsOf(o))
}

func labelsOf(o map[string]any) labels.Set {
	set := labels.Set{}
	texts, _ := meta(o)["labels"].(map[string]any)
	for key, value := range texts {
		set[key], _ = value.(string)
	}
	return set
}

// shape is an object as the client wants it.
func shape(r *http.Request, o map[string]any) any {
	if !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata") {
		return o
	}
	return map[string]any{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": o["metadata"]}
}

func (s *Server) discovery(path string) (any, int) {
	switch path {
	case "/api":
		return &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: "v1"}, Versions: []string{"v1"}}, http.StatusOK
	case "/apis":
		return s.groups(), http.StatusOK
	}
	gv, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		gv, ok = strings.CutPrefix(path, "/api/")
	}
	if parts := strings.Count(gv, "/"); !ok || strings.HasPrefix(path, "/apis/") && parts != 1 || strings.HasPrefix(path, "/api/") && parts != 0 {
		return nil, 0
	}
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
	for _, k := range s.kinds {
		if k.GroupVersion == gv {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: k.Resource, Kind: k.Kind, Namespaced: k.Namespaced})
		}
	}
	if len(list.APIResources) == 0 {
		return problem(status(http.StatusNotFound, metav1.StatusReasonNotFound, "no such group version"))
	}
	return list, http.StatusOK
}

func (s *Server) groups() *metav1.APIGroupList {
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	at := map[string]int{}
	for _, k := range s.kinds {
		group, version, ok := strings.Cut(k.GroupVersion, "/")
		if !ok {
			continue
		}
		i, known := at[group]
		if !known {
			i = len(list.Groups)
			at[group] = i
			list.Groups = append(list.Groups, metav1.APIGroup{Name: group})
		}
		served := metav1.GroupVersionForDiscovery{GroupVersion: k.GroupVersion, Version: version}
		if g := &list.Groups[i]; !slices.Contains(g.Versions, served) {
			g.Versions = append(g.Versions, served)
			g.PreferredVersion = g.Versions[0]
		}
	}
	return list
}

func meta(o map[string]any) map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

func status(code int, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{Code: int32(code), Reason: reason, Message: message}
}

func notFound(path string) *metav1.Status {
	parts := strings.Split(path, "/")
	return &metav1.Status{
		Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: path + " not found",
		Details: &metav1.StatusDetails{Kind: parts[max(len(parts)-2, 0)], Name: parts[len(parts)-1]},
	}
}

func problem(s *metav1.Status) (any, int) {
	s.TypeMeta, s.Status = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, metav1.StatusFailure
	return s, int(s.Code)
}

func fail(w http.ResponseWriter, s *metav1.Status) {
	answer, code := problem(s)
	reply(w, code, answer)
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // fails when the client has gone
}
