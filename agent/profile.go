package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strconv"
	"time"
)

// The processes that can be profiled.
const (
	profileAgent = "agent"
	profileKube  = "kube"
)

// profileHandler answers GET /v1/profile/{kind} with a profile of this process,
// in the format of `go tool pprof`: cpu and trace over ?seconds=N, everything
// else that the runtime knows as it is now.
func profileHandler(w http.ResponseWriter, r *http.Request) {
	switch kind := r.PathValue("kind"); kind {
	case "cpu":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		// With a time it would answer with the difference over that time.
		pprof.Handler(kind).ServeHTTP(w, &http.Request{Method: r.Method, URL: &url.URL{}})
	}
}

// serveProfile answers for the agent, and asks the other process for its own.
func (h *hall) serveProfile(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("process") != profileKube {
		profileHandler(w, r)
		return
	}
	body, err := call(r.Context(), kubeSocket, http.MethodGet, "/v1/profile/"+url.PathEscape(r.PathValue("kind")), url.Values{"seconds": {r.URL.Query().Get("seconds")}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer body.Close()
	_, _ = io.Copy(w, body) // the client has gone away
}

// Profile returns a profile of one of the node's processes, "agent" or "kube":
// cpu or trace over a time in whole seconds, or heap, allocs, goroutine, mutex,
// block or threadcreate as they are now. The caller closes it.
func (c *Client) Profile(ctx context.Context, process, kind string, over time.Duration) (io.ReadCloser, error) {
	if process != profileAgent && process != profileKube {
		return nil, fmt.Errorf("there is no process %q: it is %s or %s", process, profileAgent, profileKube)
	}
	return call(ctx, c.socket, http.MethodGet, "/v1/profile/"+url.PathEscape(kind), url.Values{
		"process": {process}, "seconds": {strconv.Itoa(int(over.Seconds()))},
	})
}
