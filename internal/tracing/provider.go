// Package tracing sends spans to an OpenTelemetry collector that may change
// while the program runs.
//
// A [Provider] is handed out once and switched on, off or over to another
// collector later; spans that are open while it is switched end where they
// began. It never blocks and never fails its user: what a collector does not
// take is dropped.
package tracing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/credentials"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// Provider is a trace.TracerProvider whose collector can be switched.
type Provider struct {
	embedded.TracerProvider
	attributes []attribute.KeyValue
	current    atomic.Pointer[target]
}

type target struct {
	spec     v1alpha1.TracingSpec
	provider trace.TracerProvider
	shutdown func(context.Context) error
}

// NewProvider returns a provider that sends nothing yet. The attributes
// describe whoever sends, such as service.name.
func NewProvider(attributes ...attribute.KeyValue) *Provider {
	p := &Provider{attributes: attributes}
	p.current.Store(&target{provider: noop.NewTracerProvider(), shutdown: func(context.Context) error { return nil }})
	return p
}

// Tracer returns a tracer of the present collector. Do not keep it.
func (p *Provider) Tracer(name string, options ...trace.TracerOption) trace.Tracer {
	return p.current.Load().provider.Tracer(name, options...)
}

// flushTimeout bounds how long a collector that is left may take for the last
// spans.
const flushTimeout = 5 * time.Second

// Switch sends further spans where spec says; an empty endpoint means nowhere.
// It does not wait for the collector to be there.
func (p *Provider) Switch(ctx context.Context, spec v1alpha1.TracingSpec) error {
	if p.current.Load().spec == spec {
		return nil
	}
	next, err := p.target(ctx, spec)
	if err != nil {
		return fmt.Errorf("trace to %s: %w", spec.Endpoint, err)
	}
	last := p.current.Swap(next)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		_ = last.shutdown(ctx) // spans that the old collector did not take are lost
	}()
	return nil
}

// Close sends what is left.
func (p *Provider) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return p.current.Load().shutdown(ctx)
}

func (p *Provider) target(ctx context.Context, spec v1alpha1.TracingSpec) (*target, error) {
	if spec.Endpoint == "" {
		return &target{provider: noop.NewTracerProvider(), shutdown: func(context.Context) error { return nil }}, nil
	}
	exporter, err := newExporter(ctx, spec)
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(512)),
		sdktrace.WithResource(resource.NewSchemaless(p.attributes...)),
	)
	return &target{spec: spec, provider: provider, shutdown: provider.Shutdown}, nil
}

func newExporter(ctx context.Context, spec v1alpha1.TracingSpec) (sdktrace.SpanExporter, error) {
	u, err := url.Parse(spec.Endpoint)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if spec.CACertificates != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(spec.CACertificates)) {
			return nil, errors.New("caCertificates holds no certificate in PEM")
		}
	}
	switch u.Scheme {
	case "grpc":
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(u.Host), otlptracegrpc.WithInsecure())
	case "grpcs":
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(u.Host), otlptracegrpc.WithTLSCredentials(credentials.NewTLS(config)))
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTLSClientConfig(config))
}
