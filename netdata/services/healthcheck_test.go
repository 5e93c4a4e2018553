package services

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestHealthCheckSaysWhetherThereAreLocalEndpoints(t *testing.T) {
	h := newHealthChecks(slog.New(slog.DiscardHandler))
	defer h.closeAll()
	port := freePort(t)
	for _, tc := range []struct{ local, status int }{{0, http.StatusServiceUnavailable}, {2, http.StatusOK}, {0, http.StatusServiceUnavailable}} {
		if err := h.set("default/web", port, tc.local); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
		if err != nil {
			t.Fatal(err)
		}
		var body struct {
			Service        struct{ Namespace, Name string }
			LocalEndpoints int
		}
		err = json.NewDecoder(resp.Body).Decode(&body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tc.status || body.LocalEndpoints != tc.local || body.Service.Name != "web" {
			t.Errorf("%d local endpoints: status %d, body %+v, %v", tc.local, resp.StatusCode, body, err)
		}
		if got := resp.Header.Get("X-Load-Balancing-Endpoint-Weight"); got != fmt.Sprint(tc.local) {
			t.Errorf("weight %q, want %d", got, tc.local)
		}
	}
	if err := h.set("default/web", 0, 0); err != nil {
		t.Fatal(err)
	}
	if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
		c.Close()
		t.Error("the port is open after the service has gone")
	}
}

func TestHealthCheckPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := newHealthChecks(slog.New(slog.DiscardHandler))
	defer h.closeAll()
	port := int32(l.Addr().(*net.TCPAddr).Port)
	if err := h.set("default/web", port, 1); err == nil {
		t.Fatal("no error for a port in use")
	}
	l.Close()
	if err := h.set("default/web", port, 1); err != nil {
		t.Errorf("tried again when it is free: %v", err)
	}
}

func TestHealthCheckPortIsForLocalPolicyOnly(t *testing.T) {
	svc := &corev1.Service{Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, HealthCheckNodePort: 30900, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
	}}
	if got := healthCheckPort(svc); got != 30900 {
		t.Errorf("got %d", got)
	}
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	if got := healthCheckPort(svc); got != 0 {
		t.Errorf("got %d with policy Cluster", got)
	}
}

func freePort(t *testing.T) int32 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int32(l.Addr().(*net.TCPAddr).Port)
}
