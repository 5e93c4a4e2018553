package fakeapi

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// event is one change of an object.
type event struct {
	version       int64
	kind          watch.EventType
	path          string
	before, after map[string]any
}

// prepare checks what is about to be written, and gives it the metadata that is
// not the client's to say.
func (s *Server) prepare(path string, o map[string]any) *metav1.Status {
	live := s.objects[path]
	m := meta(o)
	if live == nil {
		if ns := namespaceOf(path); ns != "" && s.objects["/api/v1/namespaces/"+ns] == nil {
			return notFound("/api/v1/namespaces/" + ns)
		}
		m["uid"] = fmt.Sprintf("uid-%d", s.version+1)
		m["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		delete(m, "resourceVersion")
		return nil
	}
	lm := meta(live)
	if version, ok := m["resourceVersion"].(string); ok && version != "" && version != lm["resourceVersion"] {
		return status(http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified")
	}
	for _, field := range []string{"uid", "creationTimestamp", "resourceVersion", "generation", "deletionTimestamp"} {
		delete(m, field)
		if value, ok := lm[field]; ok {
			m[field] = value
		}
	}
	delete(o, "status")
	if value, ok := live["status"]; ok {
		o["status"] = runtime.DeepCopyJSONValue(value)
	}
	return nil
}

// namespaceOf is the namespace that an object lies in.
func namespaceOf(path string) string {
	_, rest, ok := strings.Cut(path, "/namespaces/")
	if !ok {
		return ""
	}
	ns, _, inside := strings.Cut(rest, "/")
	if !inside {
		return ""
	}
	return ns
}

// store writes an object with the generation and status that a cluster gives it,
// if it differs from what is there.
func (s *Server) store(path string, o map[string]any) map[string]any {
	live := s.objects[path]
	s.complete(o, live)
	if live != nil && reflect.DeepEqual(live, o) {
		return live
	}
	s.version++
	meta(o)["resourceVersion"] = fmt.Sprint(s.version)
	kind := watch.Modified
	if live == nil {
		kind = watch.Added
	}
	s.objects[path] = o
	s.record(event{version: s.version, kind: kind, path: path, before: live, after: o})
	m := meta(o)
	if m["deletionTimestamp"] != nil && len(finalizers(o)) == 0 {
		s.remove(path)
	}
	return o
}

// complete fills in generation and status.
func (s *Server) complete(o, live map[string]any) {
	kind, _ := o["kind"].(string)
	m := meta(o)
	if hasGeneration(kind) {
		generation := int64(1)
		if live != nil {
			generation, _ = meta(live)["generation"].(int64)
			if !reflect.DeepEqual(content(live), content(o)) {
				generation++
			}
		}
		m["generation"] = generation
	}
	switch kind {
	case "Deployment":
		s.runDeployment(o)
	case "Namespace":
		o["status"] = map[string]any{"phase": "Active"}
	case "PodDisruptionBudget":
		o["status"] = map[string]any{"observedGeneration": m["generation"], "currentHealthy": int64(1), "desiredHealthy": int64(1)}
	case "CustomResourceDefinition":
		s.define(o)
	}
}

func hasGeneration(kind string) bool {
	switch kind {
	case "ConfigMap", "Secret", "Service", "ServiceAccount", "Namespace", "PriorityClass":
		return false
	}
	return true
}

func (s *Server) runDeployment(o map[string]any) {
	available, ready := "True", int64(1)
	name, _ := meta(o)["name"].(string)
	if s.notReady[name] {
		available, ready = "False", 0
	}
	o["status"] = map[string]any{
		"observedGeneration": meta(o)["generation"], "replicas": int64(1), "updatedReplicas": int64(1), "readyReplicas": ready, "availableReplicas": ready,
		"conditions": []any{map[string]any{"type": "Available", "status": available}, map[string]any{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}},
	}
	if spec, ok := o["spec"].(map[string]any); ok && spec["replicas"] != nil {
		n, _ := spec["replicas"].(int64)
		st := o["status"].(map[string]any)
		st["replicas"], st["updatedReplicas"] = n, n
		if ready > 0 {
			st["readyReplicas"], st["availableReplicas"] = n, n
		}
	}
}

// content is an object without metadata and status.
func content(o map[string]any) map[string]any {
	c := map[string]any{}
	for key, value := range o {
		if key != "status" && key != "metadata" {
			c[key] = value
		}
	}
	return c
}

// define serves the kind of a definition.
func (s *Server) define(crd map[string]any) {
	for _, k := range definedKinds(crd) {
		if !slices.Contains(s.kinds, k) {
			s.kinds = append(s.kinds, k)
		}
	}
	crd["status"] = map[string]any{"conditions": []any{
		map[string]any{"type": "Established", "status": "True"}, map[string]any{"type": "NamesAccepted", "status": "True"},
	}}
}

func definedKinds(crd map[string]any) []Kind {
	spec, _ := crd["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	kind, _ := names["kind"].(string)
	plural, _ := names["plural"].(string)
	group, _ := spec["group"].(string)
	versions, _ := spec["versions"].([]any)
	var out []Kind
	for _, v := range versions {
		version, _ := v.(map[string]any)["name"].(string)
		out = append(out, Kind{group + "/" + version, kind, plural, spec["scope"] == "Namespaced"})
	}
	return out
}

func finalizers(o map[string]any) []any {
	list, _ := meta(o)["finalizers"].([]any)
	return list
}

// requestDeletion deletes an object, or marks it if it has finalizers.
func (s *Server) requestDeletion(path string, options map[string]any, dryRun bool) *metav1.Status {
	live := s.objects[path]
	if live == nil {
		return notFound(path)
	}
	conditions, _ := options["preconditions"].(map[string]any)
	if uid, ok := conditions["uid"]; ok && uid != meta(live)["uid"] {
		return status(http.StatusConflict, metav1.StatusReasonConflict, "the UID in the precondition does not match")
	}
	if dryRun {
		return nil
	}
	if len(finalizers(live)) == 0 {
		s.remove(path)
		return nil
	}
	if meta(live)["deletionTimestamp"] == nil {
		o := runtime.DeepCopyJSON(live)
		meta(o)["deletionTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		s.store(path, o)
	}
	return nil
}

// remove ends an object and what is inside of it.
func (s *Server) remove(path string) {
	live := s.objects[path]
	if live == nil {
		return
	}
	delete(s.objects, path)
	s.version++
	last := runtime.DeepCopyJSON(live)
	meta(last)["resourceVersion"] = fmt.Sprint(s.version)
	s.record(event{version: s.version, kind: watch.Deleted, path: path, before: live, after: last})
	for other := range s.objects {
		if strings.HasPrefix(other, path+"/") {
			s.remove(other)
		}
	}
	if live["kind"] == "CustomResourceDefinition" {
		s.undefine(live)
	}
}

// undefine ends the objects of a kind whose definition is gone.
func (s *Server) undefine(crd map[string]any) {
	for _, k := range definedKinds(crd) {
		for path, o := range s.objects {
			if o["apiVersion"] == k.GroupVersion && o["kind"] == k.Kind {
				s.remove(path)
			}
		}
		s.kinds = slices.DeleteFunc(s.kinds, func(other Kind) bool { return other == k })
	}
}

func (s *Server) record(e event) {
	s.history = append(s.history, e)
	close(s.changed)
	s.changed = make(chan struct{})
}
