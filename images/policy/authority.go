package policy

import (
	"crypto"
	"fmt"
	"strings"

	"github.com/bothy-os/bothy/internal/cosign"
)

var hashes = map[string]crypto.Hash{
	"": crypto.SHA256, "sha224": crypto.SHA224, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512,
}

// compileAuthority reads the authority at field at.
func (c *compiler) compileAuthority(at string, number int, a *authority) Authority {
	out := Authority{Name: a.Name, Format: a.SignatureFormat}
	if out.Name == "" {
		out.Name = fmt.Sprintf("authority-%d", number)
	}
	kinds := 0
	for _, given := range []bool{a.Key != nil, a.Keyless != nil, a.Static != nil} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		c.fail(at, "give exactly one of key, keyless and static", "has %d of key, keyless and static", kinds)
		return out
	}
	c.refuse(at+".source", a.Source, "signatures travel with the image: attach them where the image is, or put them into the same layout")
	switch a.SignatureFormat {
	case "", "legacy", "simplesigning", "bundle":
	default:
		c.fail(at+".signatureFormat", "write legacy or bundle, or leave it out", "%q is not a format", a.SignatureFormat)
	}
	switch {
	case a.Static != nil:
		out.Static = c.static(at, a)
	case a.Key != nil:
		out.Believe = c.key(at, a)
	default:
		out.Believe = c.keyless(at, a)
	}
	for i := range a.Attestations {
		out.Attestations = append(out.Attestations, c.attestation(fmt.Sprintf("%s.attestations[%d]", at, i), &a.Attestations[i]))
	}
	return out
}

func (c *compiler) static(at string, a *authority) *Static {
	if len(a.Attestations) > 0 || a.CTLog != nil || a.RFC3161Timestamp != nil {
		c.fail(at, "remove what a static decision does not look at", "a static authority looks at no signatures, attestations or logs")
	}
	switch a.Static.Action {
	case "pass", "fail":
	default:
		c.fail(at+".static.action", "write pass or fail", "%q is not an action", a.Static.Action)
	}
	return &Static{Pass: a.Static.Action == "pass", Message: a.Static.Message}
}

func (c *compiler) key(at string, a *authority) *cosign.Policy {
	c.refuse(at+".key.secretRef", a.Key.SecretRef, "put the public key into data: the policy is in force before there is an API server")
	c.refuse(at+".key.kms", a.Key.KMS, "put the public key into data: verification works without a network")
	if a.Key.Data == "" {
		c.fail(at+".key.data", "give the public key in PEM", "is empty")
		return nil
	}
	hash, ok := hashes[strings.ToLower(a.Key.HashAlgorithm)]
	if !ok {
		c.fail(at+".key.hashAlgorithm", "write sha256, sha224, sha384 or sha512", "%q is not supported", a.Key.HashAlgorithm)
		return nil
	}
	demands := cosign.Demands{Hash: hash, Logged: a.CTLog != nil, Timestamped: a.RFC3161Timestamp != nil}
	if demands.Logged || demands.Timestamped {
		if demands.TrustedRoot = c.trustedRoot(at, a); demands.TrustedRoot == nil {
			return nil
		}
	}
	p, err := cosign.ByKeys(map[string][]byte{"the key": []byte(a.Key.Data)}, demands)
	if err != nil {
		c.fail(at+".key.data", "give public keys in PEM", "%v", err)
	}
	return p
}

func (c *compiler) keyless(at string, a *authority) *cosign.Policy {
	at += ".keyless"
	if len(a.Keyless.Identities) == 0 {
		c.fail(at+".identities", "name issuer and subject", "is empty, which would trust everybody who has an account")
		return nil
	}
	identities := make([]cosign.Identity, 0, len(a.Keyless.Identities))
	for i, id := range a.Keyless.Identities {
		field := fmt.Sprintf("%s.identities[%d]", at, i)
		if (id.Issuer == "") == (id.IssuerRegExp == "") || (id.Subject == "") == (id.SubjectRegExp == "") {
			c.fail(field, "", "needs one of issuer and issuerRegExp, and one of subject and subjectRegExp")
			return nil
		}
		identities = append(identities, cosign.Identity{
			Issuer: id.IssuerRegExp, Subject: id.SubjectRegExp, ExactIssuer: id.Issuer, ExactSubject: id.Subject,
		})
	}
	trusted := c.trustedRoot(strings.TrimSuffix(at, ".keyless"), a)
	if trusted == nil {
		return nil
	}
	p, err := cosign.ByIdentitiesThat(cosign.Demands{
		TrustedRoot: trusted, Timestamped: a.RFC3161Timestamp != nil, IgnoreCertificateLog: a.Keyless.InsecureIgnoreSCT,
	}, identities...)
	if err != nil {
		c.fail(at, "", "%v", err)
	}
	return p
}

// trustedRoot puts the trusted root of an authority together; nil if a part of
// it is missing.
func (c *compiler) trustedRoot(at string, a *authority) []byte {
	var parts cosign.RootParts
	base := ""
	if k := a.Keyless; k != nil {
		base = k.TrustRootRef
		parts.Authorities = c.root(at+".keyless.trustRootRef", base)
		parts.AuthorityURL = k.URL
		if k.CACert != nil {
			c.refuse(at+".keyless.ca-cert.secretRef", k.CACert.SecretRef, "put the certificate into data")
			c.refuse(at+".keyless.ca-cert.kms", k.CACert.KMS, "put the certificate into data")
			parts.AuthorityPEM = []byte(k.CACert.Data)
		}
	}
	log, stamps := base, base
	if a.CTLog != nil {
		log = a.CTLog.TrustRootRef
		parts.LogURL = a.CTLog.URL
	}
	if a.RFC3161Timestamp != nil {
		stamps = a.RFC3161Timestamp.TrustRootRef
	}
	if a.Keyless != nil || a.CTLog != nil {
		parts.Logs = c.root(at+".ctlog.trustRootRef", log)
	}
	if a.Keyless != nil || a.RFC3161Timestamp != nil {
		parts.Timestamps = c.root(at+".rfc3161timestamp.trustRootRef", stamps)
	}
	if c.failed() {
		return nil
	}
	trusted, err := parts.TrustedRoot()
	if err != nil {
		c.fail(at, "", "%v", err)
		return nil
	}
	return trusted
}

func (c *compiler) root(field, ref string) []byte {
	data, err := c.files.root(ref)
	if err != nil {
		c.fail(field, "commit trusted_root.json there: no root is fetched", "%v", err)
	}
	return data
}

func (c *compiler) attestation(at string, a *attestation) Attestation {
	out := Attestation{Name: a.Name, PredicateType: a.PredicateType, Judge: anyStatement}
	if a.Name == "" {
		c.fail(at+".name", "", "is empty")
	}
	if full, ok := predicateTypes[a.PredicateType]; ok {
		out.PredicateType = full
	}
	if out.PredicateType == "" {
		c.fail(at+".predicateType", "give a short name such as slsaprovenance1, or the full one", "is empty")
	}
	if a.Policy == nil {
		return out
	}
	at += ".policy"
	c.refuse(at+".remote", a.Policy.Remote, "put the policy into data: nothing is fetched")
	c.refuse(at+".configMapRef", a.Policy.ConfigMapRef, "put the policy into data: it is in force before there is an API server")
	for field, v := range map[string]any{
		"fetchConfigFile": a.Policy.FetchConfigFile, "includeSpec": a.Policy.IncludeSpec,
		"includeObjectMeta": a.Policy.IncludeObjectMeta, "includeTypeMeta": a.Policy.IncludeTypeMeta,
	} {
		c.refuse(at+"."+field, v, "remove it: an attestation's policy sees the statement alone")
	}
	if a.Policy.Type != "cel" {
		c.fail(at+".type", `rewrite it in CEL over predicate, predicateType and statement, with type: cel`, "%q is not supported", a.Policy.Type)
		return out
	}
	judge, err := compileCEL(a.Policy.Data)
	if err != nil {
		c.fail(at+".data", "", "is not a CEL condition: %v", err)
		return out
	}
	out.Judge = judge
	return out
}
