package sources

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/reconciler/flux/helm/internal/jobs"
	"github.com/bothy-os/bothy/reconciler/flux/helm/remote"
)

// trustedRootKey is the key of a Secret that holds a Sigstore trusted root.
const trustedRootKey = "trusted_root.json"

// verificationFailed is about a chart that is not trusted.
func verificationFailed(err error) error {
	return &problem{condition: sourcev1.FetchFailedCondition, reason: sourcev1.VerificationError, err: err}
}

// verify refuses a chart that is not signed as the object asks. Whatever cannot
// be checked counts as not signed.
func (r *chartController) verify(ctx context.Context, job *jobs.Job, now *sourcev1.HelmChart, registry *remote.Registry, pulled *remote.Pulled) error {
	if now.Spec.Verify == nil {
		conditions.Delete(now, sourcev1.SourceVerifiedCondition)
		return nil
	}
	digest := pulled.Reference.DigestStr()
	policy, err := r.policy(ctx, now)
	if err == nil {
		signatures := cosign.Remote(pulled.Reference.Context(), registry.Options(ctx)...)
		job.Wait(func() { _, err = cosign.Verify(ctx, signatures, digest, policy) })
	}
	if err != nil {
		err = fmt.Errorf("failed to verify the signature of chart %s using provider '%s': %w", pulled.Reference, now.Spec.Verify.Provider, err)
		conditions.MarkFalse(now, sourcev1.SourceVerifiedCondition, sourcev1.VerificationError, "%s", err)
		return verificationFailed(err)
	}
	conditions.MarkTrue(now, sourcev1.SourceVerifiedCondition, meta.SucceededReason, "verified signature of version %s", pulled.Version)
	return nil
}

// policy reads whom to believe.
func (r *chartController) policy(ctx context.Context, object *sourcev1.HelmChart) (*cosign.Policy, error) {
	v := object.Spec.Verify
	if v.Provider != "cosign" && v.Provider != "" {
		return nil, fmt.Errorf("signatures of %s cannot be verified here; sign the chart with cosign", v.Provider)
	}
	if v.SecretRef == nil {
		return nil, errors.New("spec.verify.secretRef names no Secret; it must hold public keys (*.pub) or, " +
			"for signatures without keys, a Sigstore trusted root (" + trustedRootKey + "): nothing is trusted by default")
	}
	secret, err := r.access.secret(ctx, object.Namespace, v.SecretRef.Name)
	if err != nil {
		return nil, err
	}
	if trusted := secret.Data[trustedRootKey]; len(trusted) > 0 {
		var identities []cosign.Identity
		for _, match := range v.MatchOIDCIdentity {
			identities = append(identities, cosign.Identity{Issuer: match.Issuer, Subject: match.Subject})
		}
		return cosign.ByIdentities(trusted, identities...)
	}
	keys := map[string][]byte{}
	for name, content := range secret.Data {
		if strings.HasSuffix(name, ".pub") {
			keys[name] = content
		}
	}
	return cosign.ByKeys(keys)
}
