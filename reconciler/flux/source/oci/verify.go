package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/bothy-os/bothy/internal/cosign"
)

const (
	providerCosign = "cosign"
	// trustedRootKey is the entry of the Secret with the trusted root.
	trustedRootKey = "trusted_root.json"
	keySuffix      = ".pub"
)

// policy is whom the object believes, with what identifies that decision.
type policy struct {
	*cosign.Policy
	id string
}

// policy returns whom the object believes, nil if it asks for no signature.
func (a *attempt) policy(ctx context.Context) (*policy, error) {
	v := a.obj.Spec.Verify
	if v == nil {
		return nil, nil
	}
	if v.Provider != providerCosign && v.Provider != "" {
		return nil, fmt.Errorf("spec.verify.provider %s is not supported; sign with cosign", v.Provider)
	}
	if v.SecretRef != nil {
		secret, err := a.secret(ctx, v.SecretRef.Name)
		if err != nil {
			return nil, err
		}
		return keyPolicy(secret)
	}
	if v.TrustedRootSecretRef == nil {
		return nil, errors.New("spec.verify names neither public keys (secretRef) nor a Sigstore trusted root (trustedRootSecretRef); no root is fetched from the Internet: put trusted_root.json into a Secret and name it, the public one is in the output of: cosign trusted-root create")
	}
	secret, err := a.secret(ctx, v.TrustedRootSecretRef.Name)
	if err != nil {
		return nil, err
	}
	return identityPolicy(secret, v.MatchOIDCIdentity)
}

func keyPolicy(secret *corev1.Secret) (*policy, error) {
	keys := map[string][]byte{}
	var parts [][]byte
	for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
		if strings.HasSuffix(name, keySuffix) {
			keys[name] = secret.Data[name]
			parts = append(parts, []byte(name), secret.Data[name])
		}
	}
	p, err := cosign.ByKeys(keys)
	if err != nil {
		return nil, fmt.Errorf("public keys in Secret '%s/%s': %w", secret.Namespace, secret.Name, err)
	}
	return &policy{Policy: p, id: identify(parts)}, nil
}

func identityPolicy(secret *corev1.Secret, matches []sourcev1.OIDCIdentityMatch) (*policy, error) {
	root, ok := secret.Data[trustedRootKey]
	if !ok {
		return nil, fmt.Errorf("secret '%s/%s' has no %s", secret.Namespace, secret.Name, trustedRootKey)
	}
	parts := [][]byte{root}
	var identities []cosign.Identity
	for _, m := range matches {
		identities = append(identities, cosign.Identity{Issuer: m.Issuer, Subject: m.Subject})
		parts = append(parts, []byte(m.Issuer), []byte(m.Subject))
	}
	if len(identities) == 0 {
		return nil, errors.New("spec.verify.matchOIDCIdentity is empty, which would trust everybody; name issuer and subject")
	}
	p, err := cosign.ByIdentities(root, identities...)
	if err != nil {
		return nil, fmt.Errorf("secret '%s/%s': %w", secret.Namespace, secret.Name, err)
	}
	return &policy{Policy: p, id: identify(parts)}, nil
}

func identify(parts [][]byte) string {
	sum := sha256.New()
	for _, part := range parts {
		each := sha256.Sum256(part)
		_, _ = bytes.NewReader(each[:]).WriteTo(sum)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// refused reports whether an error is about the signature and not about the way
// to it.
func refused(err error) bool {
	var unsigned *cosign.Unsigned
	return errors.As(err, &unsigned)
}
