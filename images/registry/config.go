package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Config says how registries are reached. The zero value reads public images.
type Config struct {
	// Keychain finds credentials. Default: the docker configuration of the user,
	// with its helpers.
	Keychain authn.Keychain
	// Registries are settings by the name that references have, such as
	// "docker.io" or "registry.example.org:5000".
	Registries map[string]Registry
	// Places, if set, says where a registry is read, in this order, in place of
	// Registries.
	Places func(registry string) ([]Place, error)
	// Attempts is how often a request is made, and how often in a row a blob may
	// break off without one new byte. Default 5.
	Attempts int
	// Wait is the time before the second attempt; it doubles. Default 1 s.
	Wait time.Duration
	// BytesPerSecond bounds all blobs together; 0 for no bound.
	BytesPerSecond int64
	// UserAgent of the requests. Default "bothy".
	UserAgent string
	// Log receives a line per failed attempt. Default: discard.
	Log *slog.Logger
}

// Place is where the repositories of a registry can be read.
type Place struct {
	// URL ends where the name of a repository begins, such as
	// https://registry.example.org/v2.
	URL *url.URL
	// Transport is the way there, Header what each request has.
	Transport http.RoundTripper
	Header    http.Header
}

// Registry is how one registry is reached.
type Registry struct {
	// Mirrors are asked before the registry itself, in this order. They are
	// URLs; a path is put before the repository: https://mirror.example.org/hub.
	Mirrors []string
	// OnlyMirrors keeps the registry itself from being asked.
	OnlyMirrors bool
	// CAFile holds PEM certificates that vouch for it and its mirrors, in
	// addition to those of the system.
	CAFile string
	// CAs are such certificates, too.
	CAs string
	// PlainHTTP speaks to the registry itself without TLS. Registries on
	// loopback are spoken to like that anyway.
	PlainHTTP bool
}

func (c *Config) defaults() {
	if c.Keychain == nil {
		c.Keychain = authn.DefaultKeychain
	}
	if c.Attempts <= 0 {
		c.Attempts = 5
	}
	if c.Wait <= 0 {
		c.Wait = time.Second
	}
	if c.UserAgent == "" {
		c.UserAgent = "bothy"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// onlyTLS keeps credentials off the wire in the clear: the library would fall
// back to plain HTTP for private addresses.
type onlyTLS struct{ http.RoundTripper }

func (t onlyTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is asked over TLS only; give --plain-http %s if it is to be trusted without", r.URL.Host, r.URL.Host)
	}
	return t.RoundTripper.RoundTrip(r)
}

// transport is the HTTP transport towards a registry and its mirrors.
func (r Registry) transport(plain bool) (http.RoundTripper, error) {
	t, err := r.tls()
	if err != nil || plain {
		return t, err
	}
	return onlyTLS{t}, nil
}

func (r Registry) tls() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	// Silence is noticed, a long transfer is not a fault.
	t.ResponseHeaderTimeout = 30 * time.Second
	if r.CAFile == "" && r.CAs == "" {
		return t, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if r.CAFile != "" {
		text, err := os.ReadFile(r.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates of a registry: %w", err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("certificates of a registry: %s holds no PEM certificate", r.CAFile)
		}
	}
	if r.CAs != "" && !pool.AppendCertsFromPEM([]byte(r.CAs)) {
		return nil, errors.New("certificates of a registry: what was given holds no PEM certificate")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// ParseMirrors reads settings of the form REGISTRY=URL.
func ParseMirrors(into map[string]Registry, settings []string) error {
	for _, s := range settings {
		host, address, ok := strings.Cut(s, "=")
		u, err := url.Parse(address)
		if !ok || host == "" || err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("mirror %q: write REGISTRY=URL, such as docker.io=https://mirror.example.org", s)
		}
		r := into[host]
		r.Mirrors = append(r.Mirrors, strings.TrimSuffix(address, "/"))
		into[host] = r
	}
	return nil
}

// ParseCAs reads settings of the form REGISTRY=FILE.
func ParseCAs(into map[string]Registry, settings []string) error {
	for _, s := range settings {
		host, file, ok := strings.Cut(s, "=")
		if !ok || host == "" || file == "" {
			return fmt.Errorf("certificates %q: write REGISTRY=FILE, such as registry.example.org=ca.pem", s)
		}
		r := into[host]
		if r.CAFile != "" {
			return errors.New("certificates of " + host + " are given twice: put them into one file")
		}
		r.CAFile = file
		into[host] = r
	}
	return nil
}
