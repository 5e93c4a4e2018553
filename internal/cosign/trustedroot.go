package cosign

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// RootParts are what a trusted root is put together from, where a policy takes
// its parts from different places. Each of the first three is the JSON of a
// trusted root, of which one part is used.
type RootParts struct {
	// Authorities issue certificates, Logs are the transparency logs, Timestamps
	// the time-stamp authorities.
	Authorities, Logs, Timestamps []byte
	// AuthorityPEM are certificates, the root last, that replace the authorities.
	AuthorityPEM []byte
	// AuthorityURL and LogURL leave only what has this address; empty leaves all.
	AuthorityURL, LogURL string
}

// TrustedRoot puts a trusted root together.
func (p RootParts) TrustedRoot() ([]byte, error) {
	authorities, err := p.authorities()
	if err != nil {
		return nil, err
	}
	certificates := map[string]*root.TransparencyLog{}
	if len(p.Authorities) > 0 {
		r, err := readRoot(p.Authorities)
		if err != nil {
			return nil, err
		}
		certificates = r.CTLogs()
	}
	logs, err := p.logs()
	if err != nil {
		return nil, err
	}
	var stamps []root.TimestampingAuthority
	if len(p.Timestamps) > 0 {
		r, err := readRoot(p.Timestamps)
		if err != nil {
			return nil, err
		}
		stamps = r.TimestampingAuthorities()
	}
	out, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, certificates, stamps, logs)
	if err != nil {
		return nil, err
	}
	return out.MarshalJSON()
}

func readRoot(text []byte) (*root.TrustedRoot, error) {
	r, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		return nil, fmt.Errorf("the trusted root cannot be read: %w", err)
	}
	return r, nil
}

func (p RootParts) authorities() ([]root.CertificateAuthority, error) {
	if len(p.AuthorityPEM) > 0 {
		return authoritiesOf(p.AuthorityPEM)
	}
	if len(p.Authorities) == 0 {
		return nil, nil
	}
	r, err := readRoot(p.Authorities)
	if err != nil {
		return nil, err
	}
	all := r.FulcioCertificateAuthorities()
	if p.AuthorityURL == "" {
		return all, nil
	}
	var out []root.CertificateAuthority
	for _, a := range all {
		if f, ok := a.(*root.FulcioCertificateAuthority); ok && f.URI == p.AuthorityURL {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the trusted root has no certificate authority with the address %s", p.AuthorityURL)
	}
	return out, nil
}

func authoritiesOf(text []byte) ([]root.CertificateAuthority, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the certificate of the authority: %w", err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("the certificate of the authority is not PEM")
	}
	last := len(chain) - 1
	return []root.CertificateAuthority{&root.FulcioCertificateAuthority{
		Root: chain[last], Intermediates: chain[:last],
		ValidityPeriodStart: chain[last].NotBefore, ValidityPeriodEnd: chain[last].NotAfter,
	}}, nil
}

func (p RootParts) logs() (map[string]*root.TransparencyLog, error) {
	if len(p.Logs) == 0 {
		return nil, nil
	}
	r, err := readRoot(p.Logs)
	if err != nil {
		return nil, err
	}
	if p.LogURL == "" {
		return r.RekorLogs(), nil
	}
	out := map[string]*root.TransparencyLog{}
	for id, l := range r.RekorLogs() {
		if l.BaseURL == p.LogURL {
			out[id] = l
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the trusted root has no transparency log with the address %s", p.LogURL)
	}
	return out, nil
}
