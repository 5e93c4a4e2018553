package signers

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// maxCMSSize bounds an armored CMS signature in bytes: certificates, a log
// entry and a time stamp fit several times over.
const maxCMSSize = 32 << 10

var (
	oidContentType    = pkcs7.OIDAttributeContentType
	oidTimestampToken = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}
	// oidRekorEntry marks the transparency log entry that gitsign attaches.
	oidRekorEntry = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 3, 1}
)

// cms is a CMS signature that was made for the payload by the key of leaf.
// Nothing is said yet about whether leaf may be believed.
type cms struct {
	leaf *x509.Certificate
	// others are further certificates sent along.
	others []*x509.Certificate
	// signed are the bytes under the signature: the signed attributes, which
	// hold the payload's digest.
	signed    []byte
	signature []byte
	// timestamps are RFC 3161 tokens and logEntry is gitsign's log entry, both
	// as they came: unsigned, to be verified by themselves.
	timestamps [][]byte
	logEntry   []byte
}

// parseCMS reads an armored detached signature as gitsign, smimesign and gpgsm
// write it, and checks it against payload.
func parseCMS(payload, armor []byte) (c *cms, err error) {
	bad := func(problem string, err error) error {
		return &Error{Class: Malformed, Problem: "has an x509 signature that " + problem, Remedy: signAgain, Err: err}
	}
	if len(armor) > maxCMSSize {
		return nil, bad(fmt.Sprintf("is %d bytes long, the limit is %d", len(armor), maxCMSSize), nil)
	}
	block, rest := pem.Decode(armor)
	if block == nil || block.Type != "SIGNED MESSAGE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, bad("is not one PEM block", nil)
	}
	// The library reads BER, which has many ways to be wrong.
	defer func() {
		if p := recover(); p != nil {
			c, err = nil, bad("cannot be read", fmt.Errorf("%v", p))
		}
	}()
	p7, err := pkcs7.Parse(block.Bytes)
	switch {
	case err != nil:
		return nil, bad("cannot be read", err)
	case len(p7.Signers) != 1:
		return nil, bad(fmt.Sprintf("has %d signers", len(p7.Signers)), nil)
	case len(p7.Content) > 0:
		return nil, bad("carries a message of its own", nil)
	case p7.GetOnlySigner() == nil:
		return nil, bad("does not bring its signer's certificate", nil)
	}
	signer := p7.Signers[0]
	c = &cms{leaf: p7.GetOnlySigner(), signature: signer.EncryptedDigest}
	for _, cert := range p7.Certificates {
		if cert != c.leaf {
			c.others = append(c.others, cert)
		}
	}
	if err := allowedCMS(c.leaf, signer.DigestAlgorithm.Algorithm); err != nil {
		return nil, &Error{Class: Unsupported, Problem: "has an x509 signature of a kind that is not accepted", Remedy: "sign with an ECDSA key and SHA-256", Err: err}
	}
	// Without signed attributes any document that somebody signed could be read
	// as the attributes of another.
	if c.signed, err = setOf(signer.AuthenticatedAttributes); err != nil || len(signer.AuthenticatedAttributes) == 0 {
		return nil, bad("has no signed attributes", err)
	}
	types, err := values(attributes(signer.AuthenticatedAttributes), oidContentType)
	if err != nil {
		return nil, bad("has bad attributes", err)
	}
	if data, _ := asn1.Marshal(pkcs7.OIDData); len(types) != 1 || !bytes.Equal(types[0], data) {
		return nil, bad("is not one of plain data", nil)
	}
	if digests, err := values(attributes(signer.AuthenticatedAttributes), pkcs7.OIDAttributeMessageDigest); err != nil || len(digests) != 1 {
		return nil, bad("does not have exactly one message digest", err)
	}
	p7.Content = payload
	var outside *pkcs7.SigningTimeNotValidError
	if err := p7.Verify(); errors.As(err, &outside) {
		return nil, &Error{
			Class:   Expired,
			Problem: fmt.Sprintf("is signed with a certificate of %s that was not valid when it was used: it was used %s, and is valid from %s to %s", describeCertificate(c.leaf), stamp(outside.SigningTime), stamp(outside.NotBefore), stamp(outside.NotAfter)),
			Remedy:  "sign with a certificate that is valid", Err: err,
		}
	} else if err != nil {
		return nil, &Error{
			Class:   Mismatch,
			Problem: fmt.Sprintf("carries a signature of %s that was not made for this commit", describeCertificate(c.leaf)),
			Remedy:  signAgain, Err: err,
		}
	}
	return c, c.unsigned(attributes(signer.UnauthenticatedAttributes))
}

// unsigned picks what proves the time from the unsigned attributes.
func (c *cms) unsigned(attrs []attribute) error {
	var err error
	if c.timestamps, err = values(attrs, oidTimestampToken); err != nil {
		return &Error{Class: Malformed, Problem: "has an x509 signature with a malformed time stamp", Remedy: signAgain, Err: err}
	}
	entries, err := values(attrs, oidRekorEntry)
	if err == nil && len(entries) > 1 {
		err = errors.New("there is more than one")
	}
	if err == nil && len(entries) == 1 {
		_, err = asn1.Unmarshal(entries[0], &c.logEntry)
	}
	if err != nil {
		return &Error{Class: Malformed, Problem: "has an x509 signature with a malformed transparency log entry", Remedy: signAgain, Err: err}
	}
	return nil
}

func allowedCMS(leaf *x509.Certificate, digest asn1.ObjectIdentifier) error {
	strong := digest.Equal(pkcs7.OIDDigestAlgorithmSHA256) || digest.Equal(pkcs7.OIDDigestAlgorithmSHA384) || digest.Equal(pkcs7.OIDDigestAlgorithmSHA512)
	if !strong {
		return fmt.Errorf("digest algorithm %s", digest)
	}
	switch leaf.PublicKeyAlgorithm {
	case x509.ECDSA:
		return nil
	case x509.RSA:
		if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() >= minRSABits {
			return nil
		}
		return fmt.Errorf("RSA keys need at least %d bits", minRSABits)
	}
	return fmt.Errorf("a certificate with a key of type %s", leaf.PublicKeyAlgorithm)
}

// attribute is a CMS attribute: a type and a set of values.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"set"`
}

// attributes copies the library's attributes, whose type has no name outside
// of it.
func attributes[A ~struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"set"`
}](from []A) []attribute {
	out := make([]attribute, 0, len(from))
	for _, a := range from {
		out = append(out, attribute(a))
	}
	return out
}

// values returns the encoded values of all attributes of a type.
func values(attrs []attribute, oid asn1.ObjectIdentifier) ([][]byte, error) {
	var out [][]byte
	for _, a := range attrs {
		if !a.Type.Equal(oid) {
			continue
		}
		for rest := a.Value.Bytes; len(rest) > 0; {
			var value asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &value); err != nil {
				return nil, err
			}
			out = append(out, value.FullBytes)
		}
	}
	return out, nil
}

// setOf encodes attributes the way they are signed: as a SET OF in DER.
func setOf[A any](attrs []A) ([]byte, error) {
	encoded, err := asn1.Marshal(struct {
		A []A `asn1:"set"`
	}{attrs})
	if err != nil {
		return nil, err
	}
	var sequence asn1.RawValue
	if _, err := asn1.Unmarshal(encoded, &sequence); err != nil {
		return nil, err
	}
	return sequence.Bytes, nil
}
