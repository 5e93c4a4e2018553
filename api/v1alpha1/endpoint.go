package v1alpha1

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// BootEndpoint is the agent's own HTTPS listener: a site can be pushed to
// directly, and Git servers can tell it that there is something to fetch.
// Without it the agent listens for neither.
type BootEndpoint struct {
	// Address to listen on, host:port. Default 0.0.0.0:9443.
	Address string `json:"address,omitempty"`
	// CertificateFile and KeyFile are the server's certificate with its chain
	// and its private key, PEM; they are read again when they change. Default: a
	// certificate that the node makes for itself, whose fingerprint `bothy status`
	// shows.
	CertificateFile string `json:"certificateFile,omitempty"`
	KeyFile         string `json:"keyFile,omitempty"`
	// ClientCertificateAuthorities are PEM certificates. Whoever holds a client
	// certificate issued by one of them may push and fetch. What is pushed must
	// be acceptable under the trust root all the same.
	ClientCertificateAuthorities string `json:"clientCertificateAuthorities,omitempty"`
	// Tokens are what may be given instead, as the password of basic
	// authentication or as a bearer token.
	Tokens []EndpointToken `json:"tokens,omitempty"`
	// Webhooks are who may say, on /hook, that the repository has a new commit.
	Webhooks []EndpointWebhook `json:"webhooks,omitempty"`
}

// EndpointToken allows whoever knows a token to push and fetch.
type EndpointToken struct {
	// Name is what the log calls its holder.
	Name string `json:"name"`
	// SHA256 is the hash of the token in hexadecimal, so that the boot
	// configuration is no secret. The token should be random: a password can be
	// guessed from its hash.
	SHA256 string `json:"sha256"`
}

// The types of webhooks.
const (
	WebhookGitHub      = "github"
	WebhookGitLab      = "gitlab"
	WebhookGitea       = "gitea"
	WebhookGenericHMAC = "generic-hmac"
	WebhookGeneric     = "generic"
)

// EndpointWebhook accepts the calls of one kind of Git server.
type EndpointWebhook struct {
	// Type is github (X-Hub-Signature-256), gitlab (X-Gitlab-Token), gitea
	// (X-Gitea-Signature, also Forgejo), generic-hmac (X-Signature: sha256=…) or
	// generic (Authorization: Bearer …).
	Type string `json:"type"`
	// SecretFile holds the secret that the server was given. It is read at each
	// call, so that it can be rotated.
	SecretFile string `json:"secretFile"`
}

// Default fills in every setting that was left out.
func (e *BootEndpoint) Default() { setDefault(&e.Address, "0.0.0.0:9443") }

// Pushable reports whether anybody may push to the endpoint.
func (e *BootEndpoint) Pushable() bool {
	return e != nil && (e.ClientCertificateAuthorities != "" || len(e.Tokens) > 0)
}

func (e *BootEndpoint) validate(p *problems) {
	if host, port, err := net.SplitHostPort(e.Address); err != nil {
		p.add("endpoint.address", `write host:port, such as "0.0.0.0:9443"`, "%q is not an address", e.Address)
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		p.add("endpoint.address", "write a port between 1 and 65535", "%q is not a port", port)
	} else if host != "" && net.ParseIP(host) == nil && !dnsSubdomain.MatchString(host) {
		p.add("endpoint.address", "write an IP address of this node, or 0.0.0.0 for all", "%q is not a host", host)
	}
	switch {
	case e.CertificateFile != "" && e.KeyFile == "":
		p.add("endpoint.keyFile", "name the file of the certificate's private key", "is empty")
	case e.CertificateFile == "" && e.KeyFile != "":
		p.add("endpoint.certificateFile", "name the file of the certificate, or remove keyFile for one that the node makes", "is empty")
	}
	if text := e.ClientCertificateAuthorities; text != "" {
		if _, err := ParseCertificates(text); err != nil {
			p.add("endpoint.clientCertificateAuthorities", "paste the authorities' certificates, PEM, one after the other", "%v", err)
		}
	}
	names := map[string]bool{}
	for i, token := range e.Tokens {
		token.validate(p, fmt.Sprintf("endpoint.tokens[%d]", i), names)
	}
	for i, hook := range e.Webhooks {
		at := fmt.Sprintf("endpoint.webhooks[%d]", i)
		oneOf(p, at+".type", hook.Type, WebhookGitHub, WebhookGitLab, WebhookGitea, WebhookGenericHMAC, WebhookGeneric)
		if hook.SecretFile == "" {
			p.add(at+".secretFile", "name the file that holds the webhook's secret", "is empty")
		}
	}
}

func (t *EndpointToken) validate(p *problems, at string, names map[string]bool) {
	switch {
	case t.Name == "":
		p.add(at+".name", "say whose token it is", "is empty")
	case names[t.Name]:
		p.add(at+".name", "", "token %q is listed twice", t.Name)
	}
	names[t.Name] = true
	if sum, err := hex.DecodeString(t.SHA256); err != nil || len(sum) != 32 {
		p.add(at+".sha256", "write what `printf %s TOKEN | sha256sum` prints", "is not a SHA-256 hash of 64 hexadecimal digits")
	}
}

// ParseCertificates reads PEM certificates that follow each other. At least one
// must be there, and nothing else.
func ParseCertificates(text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a PEM block of type %q, not only certificates", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("is not PEM certificates")
	}
	return out, nil
}
