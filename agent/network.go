package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/bothy-os/bothy/netdata"
	"github.com/bothy-os/bothy/netdata/flows"
)

// FlowLine is a line of GET /v1/flows: a flow, or how many were lost so far. The first line is
// of the second kind and says that from now on nothing is missed.
type FlowLine struct {
	Flow *flows.Flow `json:"flow,omitempty"`
	Lost *flows.Lost `json:"lost,omitempty"`
}

// networkRoutes answers questions about the dataplane.
func (h *hall) networkRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/flows", h.serveFlows)
	mux.HandleFunc("GET /v1/flows/table", h.serveNetwork(func(n *netdata.Network, q url.Values) (any, error) {
		filter, err := flows.ParseFilter(q)
		if err != nil {
			return nil, err
		}
		return n.FlowTable(filter)
	}))
	mux.HandleFunc("GET /v1/net", h.serveNetwork(func(n *netdata.Network, _ url.Values) (any, error) { return n.Report() }))
	mux.HandleFunc("GET /v1/net/services", h.serveNetwork(func(n *netdata.Network, _ url.Values) (any, error) { return n.ServiceTable() }))
	mux.HandleFunc("GET /v1/net/endpoints", h.serveNetwork(func(n *netdata.Network, _ url.Values) (any, error) { return n.EndpointTable() }))
}

var errNoNetwork = errors.New("the node has no network yet: it waits for an accepted commit, see `bothy status`")

func (h *hall) network() (*netdata.Network, error) {
	running, _ := h.running()
	if running == nil {
		return nil, errNoNetwork
	}
	return running.netdata, nil
}

func (h *hall) serveNetwork(answer func(*netdata.Network, url.Values) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := h.network()
		var v any
		if err == nil {
			v, err = answer(n, r.URL.Query())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client has gone away
	}
}

// serveFlows streams until the client goes away.
func (h *hall) serveFlows(w http.ResponseWriter, r *http.Request) {
	filter, err := flows.ParseFilter(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n, err := h.network()
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	stream := newFlowStream(w)
	if err := n.WatchFlows(r.Context(), filter, stream.write); err != nil && !stream.started {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// flowStream writes flows as lines, and what belongs together at once.
type flowStream struct {
	w       http.ResponseWriter
	buffer  *bufio.Writer
	encoder *json.Encoder
	lost    flows.Lost
	started bool
}

func newFlowStream(w http.ResponseWriter) *flowStream {
	buffer := bufio.NewWriter(w)
	return &flowStream{w: w, buffer: buffer, encoder: json.NewEncoder(buffer)}
}

func (s *flowStream) write(batch []flows.Flow, lost flows.Lost) error {
	if !s.started {
		s.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	if !s.started || lost != s.lost {
		s.started, s.lost = true, lost
		if err := s.encoder.Encode(FlowLine{Lost: &lost}); err != nil {
			return err
		}
	}
	for i := range batch {
		if err := s.encoder.Encode(FlowLine{Flow: &batch[i]}); err != nil {
			return err
		}
	}
	if err := s.buffer.Flush(); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}

// Flows calls visit with each line of the flows that match, until visit returns
// false, ctx ends or the agent goes away, which is an error.
func (c *Client) Flows(ctx context.Context, filter flows.Filter, visit func(*FlowLine) bool) error {
	body, err := call(ctx, c.socket, http.MethodGet, "/v1/flows", filter.Query())
	if err != nil {
		return err
	}
	defer body.Close()
	decoder := json.NewDecoder(bufio.NewReader(body))
	for {
		line := &FlowLine{}
		if err := decoder.Decode(line); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the agent ended the stream; its network may be restarting, see `bothy status`")
			}
			return err
		}
		if !visit(line) {
			return nil
		}
	}
}

// FlowTable lists the flows that conntrack knows and that match.
func (c *Client) FlowTable(ctx context.Context, filter flows.Filter) ([]flows.Entry, error) {
	entries, err := get[[]flows.Entry](ctx, c, "/v1/flows/table", filter.Query())
	if err != nil {
		return nil, err
	}
	return *entries, nil
}

// NetworkReport returns the network in detail.
func (c *Client) NetworkReport(ctx context.Context) (*netdata.Report, error) {
	return get[netdata.Report](ctx, c, "/v1/net", nil)
}

// ServiceTable lists the service addresses that the dataplane holds.
func (c *Client) ServiceTable(ctx context.Context) ([]netdata.ServiceEntry, error) {
	entries, err := get[[]netdata.ServiceEntry](ctx, c, "/v1/net/services", nil)
	if err != nil {
		return nil, err
	}
	return *entries, nil
}

// EndpointTable lists the pods that the dataplane holds.
func (c *Client) EndpointTable(ctx context.Context) ([]netdata.EndpointEntry, error) {
	entries, err := get[[]netdata.EndpointEntry](ctx, c, "/v1/net/endpoints", nil)
	if err != nil {
		return nil, err
	}
	return *entries, nil
}

// Metrics returns the agent's metrics in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context) (io.ReadCloser, error) {
	return call(ctx, c.socket, http.MethodGet, "/metrics", nil)
}
