package v1alpha1

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"
)

// OSSpec says which operating system the site's machines run: those that run nothing but
// bothy. Others ignore it, and say so.
type OSSpec struct {
	// Image is the OCI artifact with the system, by digest: registry/repository@sha256:…
	// `bothy os build` makes one. Empty leaves machines with what they run.
	Image string `json:"image,omitempty"`
	// HealthTimeout is how long a new system may take from its start until the machine is as
	// healthy as before; then the old one comes back. Default 10m.
	HealthTimeout Duration `json:"healthTimeout,omitempty"`
	// Registry is how the image's registry is reached.
	Registry OSRegistrySpec `json:"registry,omitempty"`
}

// OSRegistrySpec is how the registry of the system's image is reached. What comes from it is
// compared with the digest, whoever sends it.
type OSRegistrySpec struct {
	// Mirrors are asked before the registry, in this order: https://mirror.example.org/path.
	Mirrors []string `json:"mirrors,omitempty"`
	// CACertificates, PEM, vouch for it and its mirrors, in addition to those of the system.
	CACertificates string `json:"caCertificates,omitempty"`
	// PlainHTTP speaks to it without TLS.
	PlainHTTP bool `json:"plainHTTP,omitempty"`
	// CredentialsFile is a file on the machine in the format of docker's config.json, such as
	// /var/lib/bothy/seed/registry.json from a seed volume.
	CredentialsFile string `json:"credentialsFile,omitempty"`
}

const defaultOSHealthTimeout = 10 * time.Minute

func (o *OSSpec) setDefaults() { setDefault(&o.HealthTimeout.Duration, defaultOSHealthTimeout) }

var (
	// osImage is a full reference by digest. What is before it is checked when it is used.
	osImage = regexp.MustCompile(`^[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[\w][\w.-]{0,127})?@sha256:[0-9a-f]{64}$`)
	// osTimeouts bounds the trial: shorter, and nothing would be healthy; longer, and a machine
	// that nobody can reach would stay so.
	osTimeoutLeast, osTimeoutMost = time.Minute, 4 * time.Hour
)

func (o *OSSpec) validate(p *problems) {
	if o.Image != "" && !osImage.MatchString(o.Image) {
		p.add("spec.os.image", "write registry.example.org/repository@sha256:… with the digest that `bothy os build` printed", "%q does not name an image by its digest", o.Image)
	}
	if d := o.HealthTimeout.Duration; d < osTimeoutLeast || d > osTimeoutMost {
		p.add("spec.os.healthTimeout", "write a duration such as 10m", "must be %s to %s, not %s", osTimeoutLeast, osTimeoutMost, d)
	}
	for i, m := range o.Registry.Mirrors {
		if u, err := url.Parse(m); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			p.add(fmt.Sprintf("spec.os.registry.mirrors[%d]", i), "write a URL such as https://mirror.example.org", "%q is not the address of a registry", m)
		}
	}
	if text := o.Registry.CACertificates; text != "" && !strings.Contains(text, "-----BEGIN CERTIFICATE-----") {
		p.add("spec.os.registry.caCertificates", "paste the PEM text of the certificates", "holds no PEM certificate")
	}
	if f := o.Registry.CredentialsFile; f != "" && !path.IsAbs(f) {
		p.add("spec.os.registry.credentialsFile", "write an absolute path", "%q is relative", f)
	}
}

// Digest is that of the image; "" if there is none.
func (o *OSSpec) Digest() string {
	_, digest, _ := strings.Cut(o.Image, "@")
	return digest
}
