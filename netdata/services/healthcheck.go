package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// healthChecks answer load balancers outside that ask on a Service's healthCheckNodePort
// whether this node has endpoints of it. It is not safe for concurrent use.
type healthChecks struct {
	log    *slog.Logger
	byName map[string]*healthCheck
}

type healthCheck struct {
	service string
	port    int32
	local   atomic.Int32
	server  *http.Server
}

func newHealthChecks(log *slog.Logger) *healthChecks {
	return &healthChecks{log: log, byName: map[string]*healthCheck{}}
}

// healthCheckPort is 0 for Services without one.
func healthCheckPort(svc *corev1.Service) int32 {
	if svc == nil || !balanced(svc) || svc.Spec.Type != corev1.ServiceTypeLoadBalancer ||
		svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return 0
	}
	return svc.Spec.HealthCheckNodePort
}

// set has the Service, a namespace/name, answered for on the port; 0 ends that.
func (h *healthChecks) set(service string, port int32, local int) error {
	c := h.byName[service]
	if c != nil && c.port != port {
		h.close(c)
		c = nil
	}
	if c == nil && port != 0 {
		var err error
		if c, err = h.open(service, port); err != nil {
			return err
		}
	}
	if c != nil {
		c.local.Store(int32(local))
	}
	return nil
}

func (h *healthChecks) open(service string, port int32) (*healthCheck, error) {
	c := &healthCheck{service: service, port: port}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort("", strconv.Itoa(int(port))))
	if err != nil {
		return nil, fmt.Errorf("healthCheckNodePort %d: %w", port, err)
	}
	c.server = &http.Server{Handler: c, ReadTimeout: 10 * time.Second}
	go func() {
		if err := c.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("health checks of a service are not answered any more", "service", service, "port", port, "err", err)
		}
	}()
	h.byName[service] = c
	return c, nil
}

func (h *healthChecks) close(c *healthCheck) {
	delete(h.byName, c.service)
	if err := c.server.Close(); err != nil {
		h.log.Warn("close the health check port of a service", "service", c.service, "err", err)
	}
}

// closeAll ends all answers.
func (h *healthChecks) closeAll() {
	for _, c := range h.byName {
		h.close(c)
	}
}

// ServeHTTP answers the way kube-proxy does, which load balancers are made for.
func (c *healthCheck) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	local := c.local.Load()
	namespace, name, _ := strings.Cut(c.service, "/")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(int(local)))
	if local == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// A client that has gone away is no concern of ours.
	_ = json.NewEncoder(w).Encode(map[string]any{
		"service":             map[string]string{"namespace": namespace, "name": name},
		"localEndpoints":      local,
		"serviceProxyHealthy": true,
	})
}
