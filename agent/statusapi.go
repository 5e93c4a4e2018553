package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/internal/version"
	"github.com/bothy-os/bothy/os/boot"
)

// statusComponent answers on the agent's socket.
func (h *hall) statusComponent() supervise.Component {
	return supervise.Component{Name: "status-api", Run: func(ctx context.Context, ready func()) error {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
			changed := func() <-chan struct{} { return h.statusChanged(r.Context()) }
			statusHandler(h.status, changed)(w, r)
		})
		mux.HandleFunc("GET /v1/kubeconfig", h.serveKubeconfig)
		mux.HandleFunc("POST /v1/reconcile", h.serveReconcile)
		mux.HandleFunc("GET /v1/history", h.serveHistory)
		mux.HandleFunc("POST /v1/settings/retry", h.serveSettingsRetry)
		mux.HandleFunc("POST /v1/reset", h.serveReset)
		mux.HandleFunc("POST /v1/diff", h.servePreview)
		mux.HandleFunc("GET /v1/profile/{kind}", h.serveProfile)
		mux.HandleFunc("GET /v1/images/verdict", h.serveImageVerdict)
		mux.HandleFunc("POST /v1/os/retry", h.serveOSRetry)
		h.networkRoutes(mux)
		mux.Handle("GET /metrics", h.metricsHandler())
		return serveSocket(ctx, boot.AgentSocket, mux, ready)
	}}
}

func (h *hall) serveReconcile(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("wait") == "" {
		h.reconciler.Trigger()
		return
	}
	if err := h.reconciler.Reconcile(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func (h *hall) serveOSRetry(w http.ResponseWriter, r *http.Request) {
	if err := h.os.retry(r.URL.Query().Get("digest")); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// metricsHandler serves the metrics of the process, of the reconciler and of the network that
// runs at the moment.
func (h *hall) metricsHandler() http.Handler {
	network := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		n, err := h.network()
		if err != nil {
			return nil, nil //nolint:nilerr // before there is a network it has no metrics
		}
		return n.Metrics().Gather()
	})
	images := prometheus.NewRegistry()
	images.MustRegister(imageMetrics{status: h.imageStatus})
	all := prometheus.Gatherers{prometheus.DefaultGatherer, h.reconciler.Metrics(), network, images}
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func (h *hall) serveHistory(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		http.Error(w, "limit must be a number", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(h.reconciler.History(limit)) // the client has gone away
}

// serveKubeconfig sends the administrator's kubeconfig with the files it
// refers to put inside.
func (h *hall) serveKubeconfig(w http.ResponseWriter, _ *http.Request) {
	if h.follows() {
		http.Error(w, "this machine is no control plane: ask that one for a kubeconfig", http.StatusConflict)
		return
	}
	config, err := clientcmd.LoadFromFile(h.paths.AdminKubeconfig())
	if err == nil {
		err = clientcmdapi.FlattenConfig(config)
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("the control plane has no certificates yet: %v", err), http.StatusServiceUnavailable)
		return
	}
	rename(config, h.env.Name)
	data, err := clientcmd.Write(*config)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(data) // the client has gone away
}

// rename calls cluster, user and context after the node, so that kubeconfigs
// of several nodes can be merged.
func rename(c *clientcmdapi.Config, node string) {
	context := c.Contexts[c.CurrentContext]
	if context == nil {
		return
	}
	c.Clusters = map[string]*clientcmdapi.Cluster{node: c.Clusters[context.Cluster]}
	c.AuthInfos = map[string]*clientcmdapi.AuthInfo{node + "-admin": c.AuthInfos[context.AuthInfo]}
	context.Cluster, context.AuthInfo = node, node+"-admin"
	c.Contexts = map[string]*clientcmdapi.Context{node: context}
	c.CurrentContext = node
}

// status puts together what the parts of the node say.
func (h *hall) status() Status {
	st := h.gather()
	h.milestones.note(st)
	st.Milestones = h.milestones.get()
	return st
}

func (h *hall) gather() Status {
	st := Status{
		Git: h.reconciler.Status(), Settings: h.settingsStatus(),
		Node: NodeStatus{
			Name: h.env.Name, IP: h.env.Address, BootID: h.env.BootID,
			Started: time.Unix(0, h.env.StartedAt), Version: version.Get(), TrustNone: h.boot.Trust.None,
		},
		Processes: []ProcessStatus{{Name: "agent", PID: os.Getpid()}},
	}
	h.describeMachine(&st)
	st.OS = h.os.describe()
	for _, c := range h.outer.Status() {
		if h.follows() && appliers[c.Name] {
			continue // another machine does this
		}
		st.Components = append(st.Components, ComponentStatus{Process: "agent", Status: c})
	}
	st.Node.Reason = "waiting for an accepted commit"
	running, _ := h.running()
	if running == nil {
		if held := h.heldBack(); held != nil {
			st.Node.Reason, st.Node.Held = held.Error(), true
		}
		return st
	}
	for _, c := range running.supervisor.Status() {
		st.Components = append(st.Components, ComponentStatus{Process: "agent", Status: c})
	}
	network := running.netdata.Status()
	st.Network = &network
	kube, _ := running.child.Status()
	if kube == nil {
		st.Node.Reason = "bothy kube is not running"
		if running.keeper != nil && running.keeper.Problem() != nil {
			st.Node.Reason = running.keeper.Problem().Error()
		}
		return st
	}
	st.Processes = append(st.Processes, ProcessStatus{Name: "kube", PID: kube.PID})
	for _, c := range kube.Components {
		st.Components = append(st.Components, ComponentStatus{Process: "kube", Status: c})
	}
	st.ControlPlane, st.Kubelet, st.Images = kube.ControlPlane, &kube.Kubelet, kube.Images
	st.Imports = &kube.Imports
	st.Node.Ready, st.Node.Reason, st.URLs = h.node.get()
	st.Pods = h.node.podCounts()
	return st
}

// statusChanged returns a channel that is closed at the next change of
// anything status reports, or when ctx ends.
func (h *hall) statusChanged(ctx context.Context) <-chan struct{} {
	sources := []<-chan struct{}{h.outer.Changed(), h.reconciler.Changed(), h.node.changedChan(), h.milestones.changedChan(), h.os.changedChan()}
	running, siteChanged := h.running()
	_, settingsChanged := h.settings.Status()
	sources = append(sources, settingsChanged)
	sources = append(sources, siteChanged)
	if running != nil {
		_, kubeChanged := running.child.Status()
		sources = append(sources, running.supervisor.Changed(), kubeChanged)
	}
	return firstOf(ctx, sources)
}

// firstOf returns a channel that is closed when one of sources is, or ctx ends.
func firstOf(ctx context.Context, sources []<-chan struct{}) <-chan struct{} {
	out := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	for _, source := range sources {
		go func() {
			select {
			case <-source:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	go func() {
		<-ctx.Done()
		cancel()
		close(out)
	}()
	return out
}

// nameservers lists the servers of a resolver configuration.
func nameservers(resolvConf string) []string {
	var out []string
	for line := range strings.Lines(resolvConf) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" {
			out = append(out, fields[1])
		}
	}
	return out
}
