package signers

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// certified is a signer of kind x509: who certifies it, and what a certificate
// must say to be the signer's.
type certified struct {
	// anchors and intermediates are pinned authorities; nil with a Sigstore
	// trusted root, which brings its own.
	anchors       *x509.CertPool
	intermediates []*x509.Certificate
	// witnesses attest times, and certificates where anchors is nil; nil if
	// nobody attests times.
	witnesses root.TrustedMaterial
	// roots are what chains end at, for people to compare.
	roots []*x509.Certificate

	subject *regexp.Regexp // nil: any
	pattern bool           // the subject has wildcards
	issuer  string         // "": any
}

// parseCertified reads the pinned authorities of a signer. The fingerprint
// identifies their content together with the identity.
func parseCertified(s v1alpha1.Signer) (*certified, string, error) {
	c := &certified{issuer: s.Issuer, pattern: strings.Contains(s.Subject, "*")}
	var err error
	if s.Subject != "" {
		if c.subject, err = subjectPattern(s.Subject); err != nil {
			return nil, "", fmt.Errorf("subject: %w", err)
		}
	}
	if s.TrustedRoot != "" {
		err = c.useTrustedRoot(s)
	} else {
		err = c.useAuthorities(s)
	}
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{strings.TrimSpace(s.TrustedRoot), strings.TrimSpace(s.CertificateAuthorities), s.Subject, s.Issuer}, "\x00")))
	return c, "x509:" + hex.EncodeToString(sum[:]), nil
}

func (c *certified) useTrustedRoot(s v1alpha1.Signer) error {
	if s.Subject == "" || s.Issuer == "" {
		return errors.New("subject and issuer are needed beside trustedRoot, because anybody can get a certificate of a Sigstore authority")
	}
	trusted, err := root.NewTrustedRootFromJSON([]byte(s.TrustedRoot))
	if err != nil {
		return fmt.Errorf("trustedRoot is not a Sigstore trusted root (trusted_root.json): %w", err)
	}
	if len(trusted.FulcioCertificateAuthorities()) == 0 {
		return errors.New("trustedRoot has no certificate authority")
	}
	if len(trusted.RekorLogs()) == 0 && len(trusted.TimestampingAuthorities()) == 0 {
		return errors.New("trustedRoot has neither a transparency log nor a time-stamp authority, so that nobody could say when a short-lived certificate was used")
	}
	for _, authority := range trusted.FulcioCertificateAuthorities() {
		if fulcio, ok := authority.(*root.FulcioCertificateAuthority); ok {
			c.roots = append(c.roots, fulcio.Root)
		}
	}
	c.witnesses = trusted
	return nil
}

func (c *certified) useAuthorities(s v1alpha1.Signer) error {
	certs, err := parseCertificates("certificateAuthorities", s.CertificateAuthorities)
	if err != nil {
		return err
	}
	c.anchors = x509.NewCertPool()
	for _, cert := range certs {
		switch {
		case !cert.IsCA:
			return fmt.Errorf("certificateAuthorities: %q is not an authority; pin the certificate of its issuer", cert.Subject)
		case selfSigned(cert):
			c.anchors.AddCert(cert)
			c.roots = append(c.roots, cert)
		default:
			c.intermediates = append(c.intermediates, cert)
		}
	}
	if len(c.roots) == 0 {
		return errors.New("certificateAuthorities holds no self-signed certificate for a chain to end at")
	}
	c.witnesses, err = parseWitnesses(s)
	return err
}

func parseWitnesses(s v1alpha1.Signer) (root.TrustedMaterial, error) {
	if s.TransparencyLogKeys == "" && s.TimestampAuthorities == "" {
		return nil, nil
	}
	logs, err := parseLogs(s.TransparencyLogKeys)
	if err != nil {
		return nil, err
	}
	stampers, err := parseTimestampAuthorities(s.TimestampAuthorities)
	if err != nil {
		return nil, err
	}
	return root.NewTrustedRoot(root.TrustedRootMediaType01, nil, nil, stampers, logs)
}

// parseCertificates reads PEM certificates; text without any is an error.
func parseCertificates(field, text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := []byte(text); len(strings.TrimSpace(string(rest))) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s holds something that is not a PEM certificate", field)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no PEM certificate", field)
	}
	return out, nil
}

func selfSigned(cert *x509.Certificate) bool { return cert.CheckSignatureFrom(cert) == nil }

// verifyX509 checks an armored CMS signature of payload and finds the signer
// that its certificate belongs to.
func (r *Keyring) verifyX509(c *Commit, armor []byte, now time.Time) (*key, *x509.Certificate, error) {
	sig, err := parseCMS(c.Payload, armor)
	if err != nil {
		return nil, nil, err
	}
	// A signer that is named exactly goes before one that only matches.
	candidates := make([]*key, 0, len(r.keys))
	for _, k := range r.keys {
		if k.x509 != nil {
			candidates = append(candidates, k)
		}
	}
	slices.SortStableFunc(candidates, func(a, b *key) int { return a.x509.breadth() - b.x509.breadth() })

	var closest *Error
	for _, k := range candidates {
		bad := k.x509.check(sig, k.signer.Name, c.CommitTime, now)
		if bad == nil {
			return k, sig.leaf, nil
		}
		if closest == nil || bad.closeness() > closest.closeness() {
			closest = bad
		}
	}
	if closest != nil {
		return nil, nil, closest
	}
	return nil, nil, &Error{
		Class:   UnknownKey,
		Problem: fmt.Sprintf("is signed with a certificate of %s, but the trust root in force lists no signer of kind x509", describeCertificate(sig.leaf)),
		Remedy:  "sign with a listed key, or have a listed signer add this identity to trust/root.yaml first",
	}
}

// breadth orders signers by how many certificates could be theirs.
func (c *certified) breadth() int {
	switch {
	case c.subject == nil:
		return 2
	case c.pattern:
		return 1
	}
	return 0
}

// closeness tells which of several signers' refusals explains most: the one of
// the signer whom the certificate names.
func (e *Error) closeness() int {
	switch e.Class {
	case Untimed, Expired:
		return 2
	case Untrusted:
		return 1
	}
	return 0
}

// check says why the signature is not this signer's, or returns nil.
func (c *certified) check(sig *cms, name string, commitTime, now time.Time) *Error {
	owner := describeCertificate(sig.leaf)
	if !c.names(sig.leaf) {
		return &Error{
			Class:   UnknownKey,
			Problem: fmt.Sprintf("is signed with a certificate of %s, whom the trust root in force does not list", owner),
			Remedy:  "sign as a listed identity, or have a listed signer add this one to trust/root.yaml first",
		}
	}
	if c.witnesses == nil {
		return c.checkAt(sig, name, moment{commitTime, "at the commit's time"}, moment{now, "now"})
	}
	attested, err := c.attestedTimes(sig)
	if err != nil {
		return &Error{
			Class:   Untimed,
			Problem: fmt.Sprintf("is signed with a certificate of %s, but nobody whom the trust root lists attests when", owner),
			Remedy:  "sign with the transparency log entry in the signature (git config gitsign.rekorMode offline) or with a time stamp",
			Err:     err,
		}
	}
	return c.checkAt(sig, name, attested...)
}

// names reports whether the certificate is about the signer.
func (c *certified) names(leaf *x509.Certificate) bool {
	if c.issuer != "" && issuerOf(leaf) != c.issuer {
		return false
	}
	return c.subject == nil || slices.ContainsFunc(subjects(leaf), c.subject.MatchString)
}

// moment is a time at which a certificate must be valid.
type moment struct {
	at   time.Time
	when string
}

// checkAt builds the chain to a pinned authority at each of the moments.
func (c *certified) checkAt(sig *cms, name string, moments ...moment) *Error {
	for _, m := range moments {
		err := c.chain(sig, m.at)
		var invalid x509.CertificateInvalidError
		switch {
		case err == nil:
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			return &Error{
				Class:   Expired,
				Problem: fmt.Sprintf("is signed by %q with a certificate that is not valid %s (%s): it is valid from %s to %s", name, m.when, stamp(m.at), stamp(sig.leaf.NotBefore), stamp(sig.leaf.NotAfter)),
				Remedy:  "sign with a certificate that is valid; pin timestampAuthorities in trust/root.yaml for signatures that are to outlive their certificates",
				Err:     err,
			}
		default:
			return &Error{
				Class:   Untrusted,
				Problem: fmt.Sprintf("is signed with a certificate of %s that no authority pinned for %q issued", describeCertificate(sig.leaf), name),
				Remedy:  "sign with a certificate of the pinned authority, or have a listed signer change certificateAuthorities in trust/root.yaml first",
				Err:     err,
			}
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// chain checks that a pinned authority issued the certificate for signing.
func (c *certified) chain(sig *cms, at time.Time) error {
	if usage := sig.leaf.KeyUsage; usage != 0 && usage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return errors.New("the certificate is not for signing")
	}
	if c.anchors == nil {
		return c.sigstoreChain(sig.leaf, at)
	}
	between := x509.NewCertPool()
	for _, cert := range append(slices.Clone(c.intermediates), sig.others...) {
		between.AddCert(cert)
	}
	_, err := sig.leaf.Verify(x509.VerifyOptions{
		Roots: c.anchors, Intermediates: between, CurrentTime: at,
		// S/MIME and code signing certificates are both in use for commits.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageCodeSigning},
	})
	return err
}

// sigstoreChain checks a certificate of a Sigstore authority, with the proof
// that it was published where the trusted root has logs of certificates.
func (c *certified) sigstoreChain(leaf *x509.Certificate, at time.Time) error {
	var first error
	for _, authority := range c.witnesses.FulcioCertificateAuthorities() {
		chains, err := authority.Verify(leaf, at)
		if err == nil && len(c.witnesses.CTLogs()) > 0 {
			err = verify.VerifySignedCertificateTimestamp(chains, 1, c.witnesses)
		}
		if err == nil {
			return nil
		}
		var invalid x509.CertificateInvalidError
		if first == nil || errors.As(err, &invalid) {
			first = err
		}
	}
	return first
}
