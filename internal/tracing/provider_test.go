package tracing_test

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/tracing"
)

// newCollector takes spans over OTLP/HTTP with TLS and passes on their names.
func newCollector(t *testing.T) (*httptest.Server, chan string) {
	names := make(chan string, 10)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					names <- resource.Resource.Attributes[0].Value.GetStringValue() + " " + span.Name
				}
			}
		}
	}))
	t.Cleanup(server.Close)
	return server, names
}

func specOf(s *httptest.Server) v1alpha1.TracingSpec {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return v1alpha1.TracingSpec{Endpoint: s.URL, CACertificates: string(ca)}
}

func TestSpansFollowTheSwitch(t *testing.T) {
	first, firstNames := newCollector(t)
	second, secondNames := newCollector(t)
	p := tracing.NewProvider(attribute.String("service.name", "bothy"))
	ctx := context.Background()
	span := func(name string) {
		_, s := p.Tracer("test").Start(ctx, name)
		s.End()
	}
	span("nowhere")
	for _, step := range []struct {
		server *httptest.Server
		names  chan string
		span   string
	}{{first, firstNames, "one"}, {second, secondNames, "two"}} {
		if err := p.Switch(ctx, specOf(step.server)); err != nil {
			t.Fatal(err)
		}
		span(step.span)
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		names chan string
		name  string
	}{{firstNames, "bothy one"}, {secondNames, "bothy two"}} {
		select {
		case got := <-want.names:
			if got != want.name {
				t.Errorf("got %q, want %q", got, want.name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("no span %q arrived", want.name)
		}
	}
}

func TestBadCertificateIsAnError(t *testing.T) {
	p := tracing.NewProvider()
	if err := p.Switch(context.Background(), v1alpha1.TracingSpec{Endpoint: "https://localhost:1", CACertificates: "x"}); err == nil {
		t.Fatal("no error")
	}
}
