package endpoint

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// access knows who may push and fetch.
type access struct {
	tokens   []token
	failures *failures
}

type token struct {
	name string
	sum  [sha256.Size]byte
}

func newAccess(tokens []v1alpha1.EndpointToken) (*access, error) {
	a := &access{failures: newFailures()}
	for _, t := range tokens {
		sum, err := hex.DecodeString(t.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("endpoint token %q in the boot configuration: sha256 is not a hash of 64 hexadecimal digits", t.Name)
		}
		a.tokens = append(a.tokens, token{name: t.Name, sum: [sha256.Size]byte(sum)})
	}
	return a, nil
}

// caller is somebody who may push.
type caller struct {
	// name is whose token it was, or the subject of the client certificate.
	name string
	from string // address
}

// authenticated passes requests on whose sender is known.
func (e *Endpoint) authenticated(next func(http.ResponseWriter, *http.Request, caller)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from := remoteHost(r)
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			next(w, r, caller{name: subject(r.TLS.VerifiedChains[0][0]), from: from})
			return
		}
		secret, given := credentials(r)
		switch {
		case !given:
			// git asks without credentials first; that is no failure.
		case e.access.failures.tooMany(from):
			w.Header().Set("Retry-After", "60")
			http.Error(w, "too many attempts with a wrong token from this address; wait a minute", http.StatusTooManyRequests)
			return
		default:
			if name, ok := e.access.whose(secret); ok {
				next(w, r, caller{name: name, from: from})
				return
			}
			e.access.failures.add(from)
			e.log.Warn("a wrong token was given to the endpoint", "from", from)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="bothy", charset="UTF-8"`)
		http.Error(w, "give a token of the boot configuration's endpoint.tokens as the password, or a client certificate of one of its authorities", http.StatusUnauthorized)
	}
}

// credentials returns the password of basic authentication or the bearer token.
func credentials(r *http.Request) (secret string, given bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(value), true
}

// whose compares a secret with every token, in the same time whichever of them
// it is.
func (a *access) whose(secret string) (name string, ok bool) {
	sum := sha256.Sum256([]byte(secret))
	for _, t := range a.tokens {
		if subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 {
			name, ok = t.name, true
		}
	}
	return name, ok
}

// subject names the holder of a client certificate.
func subject(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	}
	return "certificate " + c.SerialNumber.Text(16)
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
