package fakeapi

import (
	"encoding/json"
	"net/http"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// watch streams the changes since the version asked for, until the connection or
// the server ends it.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	in, ok := s.collection(r)
	from, err := strconv.ParseInt(r.URL.Query().Get("resourceVersion"), 10, 64)
	expired, cut := from < s.oldest, s.cut
	s.mu.Unlock()
	switch {
	case !ok:
		fail(w, notFound(r.URL.Path))
		return
	case err != nil:
		fail(w, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()))
		return
	case expired:
		fail(w, status(http.StatusGone, metav1.StatusReasonExpired, "too old resource version"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(w)
	flusher, _ := w.(http.Flusher)
	flusher.Flush()
	for {
		s.mu.Lock()
		events, changed := s.since(from), s.changed
		from = s.version
		s.mu.Unlock()
		for _, e := range events {
			if kind, o := in.sees(e); o != nil {
				if out.Encode(map[string]any{"type": kind, "object": shape(r, o)}) != nil {
					return
				}
			}
		}
		flusher.Flush()
		select {
		case <-changed:
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s *Server) since(version int64) []event {
	for i, e := range s.history {
		if e.version > version {
			return s.history[i:len(s.history):len(s.history)]
		}
	}
	return nil
}

// sees is an event as this selection sees it: an object that loses its label is
// deleted, one that gets it is added.
func (in selection) sees(e event) (watch.EventType, map[string]any) {
	before, after := in.has(e.path, e.before), e.kind != watch.Deleted && in.has(e.path, e.after)
	switch {
	case before && after:
		return watch.Modified, e.after
	case after:
		return watch.Added, e.after
	case before:
		return watch.Deleted, e.after
	}
	return "", nil
}
