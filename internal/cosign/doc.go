// Package cosign verifies that somebody trusted signed what a registry holds.
//
// It takes a digest, a way to read the repository that the digest is in, and a
// [Policy]: public keys, or identities with the Sigstore trusted root that
// vouches for them. It understands both ways in which cosign attaches
// signatures: bundles that refer to the digest, and the older tag
// "sha256-<digest>.sig" with signed payloads as layers.
//
// It promises that nothing but what the policy names is believed. Verification
// is offline: certificates, transparency log entries and time stamps are checked
// with the trusted root that was given and what is attached to the signature; no
// service is asked, and no root is fetched. A signature of one digest never
// counts for another, nor an attestation for a signature.
//
// The package must not know Kubernetes or what is in the artifact.
//
// Reading and deciding are apart: [Collect] reads what is attached to a digest,
// [Check] and [CheckStatement] decide about it and touch nothing, so that what
// was collected can be carried to a machine without a network. [Verify] is both.
//
// Map: policy.go (whom to believe), signatures.go (what is attached),
// verify.go (the decision), bundle.go, legacy.go and envelope.go (the formats),
// repository.go (what is read), remote.go (from a registry).
package cosign
