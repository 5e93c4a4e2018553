package signers

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"regexp"
	"strings"
)

// The extensions in which a Sigstore authority says who vouched for the
// subject: the first holds plain text, the second a UTF8String.
var (
	oidIssuerV1 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	oidIssuerV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
)

// subjects are the names in a certificate that can identify a signer.
func subjects(cert *x509.Certificate) []string {
	names := append([]string(nil), cert.EmailAddresses...)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}

// issuerOf returns who vouched for the subject of a Sigstore certificate, ""
// for others. A certificate whose two statements differ has none.
func issuerOf(cert *x509.Certificate) string {
	var first, second string
	for _, e := range cert.Extensions {
		switch {
		case e.Id.Equal(oidIssuerV1):
			first = string(e.Value)
		case e.Id.Equal(oidIssuerV2):
			if rest, err := asn1.Unmarshal(e.Value, &second); err != nil || len(rest) > 0 {
				return ""
			}
		}
	}
	switch {
	case second == "":
		return first
	case first == "" || first == second:
		return second
	}
	return ""
}

// describeCertificate names a certificate's owner in a sentence.
func describeCertificate(cert *x509.Certificate) string {
	name := strings.Join(subjects(cert), ", ")
	if name == "" {
		name = cert.Subject.String()
	}
	if name == "" {
		name = "certificate " + certificateFingerprint(cert)
	}
	if issuer := issuerOf(cert); issuer != "" {
		name += " (" + issuer + ")"
	}
	return name
}

// certificateFingerprint is the SHA-256 of the certificate in upper-case
// hexadecimal.
func certificateFingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// subjectPattern turns a pattern, in which "*" stands for any characters but a
// slash and "**" for any characters, into an expression that matches whole
// names. Everything else, upper and lower case included, must be equal.
func subjectPattern(pattern string) (*regexp.Regexp, error) {
	expression := regexp.QuoteMeta(pattern)
	expression = strings.ReplaceAll(expression, `\*\*`, `.*`)
	expression = strings.ReplaceAll(expression, `\*`, `[^/]*`)
	return regexp.Compile(`(?s)\A` + expression + `\z`)
}
