package v1alpha1

import (
	"net/url"
	"path"
	"strings"
	"time"
)

// GitOpsSpec tunes how the site follows its repository.
type GitOpsSpec struct {
	// HealthTimeout is how long the objects of a commit may take to become
	// healthy before the site counts as degraded. Default 5m.
	HealthTimeout Duration `json:"healthTimeout,omitempty"`
	// FluxAPI is the Flux API that the reconciler serves.
	FluxAPI FluxAPISpec `json:"fluxAPI,omitempty"`
}

// FluxAPISpec configures the Flux API: Kustomization, HelmRelease and their
// sources, reconciled by bothy itself.
type FluxAPISpec struct {
	// Disabled turns it off; objects of these kinds are then left alone.
	Disabled bool `json:"disabled,omitempty"`
	// NoCrossNamespaceRefs refuses references to objects of another namespace.
	NoCrossNamespaceRefs bool `json:"noCrossNamespaceRefs,omitempty"`
	// DefaultServiceAccount is impersonated for objects that name none; empty
	// means that they are reconciled with the agent's own rights.
	DefaultServiceAccount string `json:"defaultServiceAccount,omitempty"`
}

// BootDecryption holds what cannot be in the repository itself.
type BootDecryption struct {
	// KeysDirectory is a directory of SOPS keys: *.agekey files hold age (or
	// SSH) identities, *.asc files OpenPGP private keys. They open what is
	// encrypted in the site's directory. Files are read at each build, so that
	// keys can be added and rotated.
	KeysDirectory string `json:"keysDirectory,omitempty"`
}

func (d *BootDecryption) validate(p *problems) {
	if dir := d.KeysDirectory; dir != "" && !path.IsAbs(dir) {
		p.add("decryption.keysDirectory", "write an absolute path", "%q is relative", dir)
	}
}

// TelemetrySpec says where the agent sends what it measures. Metrics are
// pulled from the agent and need no setting.
type TelemetrySpec struct {
	Tracing TracingSpec `json:"tracing,omitempty"`
}

// TracingSpec sends a trace of every commit's way from the repository to
// healthy workloads to an OpenTelemetry collector.
type TracingSpec struct {
	// Endpoint is the collector: https://host:4318 or http://… for OTLP over
	// HTTP, grpcs://host:4317 or grpc://… for OTLP over gRPC. Empty turns tracing
	// off.
	Endpoint string `json:"endpoint,omitempty"`
	// CACertificates, PEM, are trusted instead of the system's.
	CACertificates string `json:"caCertificates,omitempty"`
}

func (g *GitOpsSpec) setDefaults() { setDefault(&g.HealthTimeout.Duration, 5*time.Minute) }

func (g *GitOpsSpec) validate(p *problems) {
	if d := g.HealthTimeout.Duration; d < time.Second {
		p.add("spec.gitOps.healthTimeout", "write a duration such as 5m", "must be at least 1s, not %s", d)
	}
	if name := g.FluxAPI.DefaultServiceAccount; name != "" && !dnsSubdomain.MatchString(name) {
		p.add("spec.gitOps.fluxAPI.defaultServiceAccount", "", "%q is not the name of a ServiceAccount", name)
	}
}

func (t *TracingSpec) validate(p *problems) {
	if t.Endpoint == "" {
		return
	}
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Host == "" || !strings.Contains(" http https grpc grpcs ", " "+u.Scheme+" ") {
		p.add("spec.telemetry.tracing.endpoint", "write https://host:4318 (OTLP over HTTP) or grpcs://host:4317 (OTLP over gRPC)", "%q is not the address of a collector", t.Endpoint)
	}
}
