// Package policy is what a site demands of the images it runs.
//
// The policy is part of the accepted Git tree: trust/images.yaml holds
// Sigstore ClusterImagePolicies (policy.sigstore.dev/v1beta1), and one
// ImageTrust of bothy's own for what that kind has no words for. Trusted roots
// lie beside it, as trust/trusted_root.json or trust/NAME.trusted_root.json.
// [Read] takes the files out of a tree, [Compile] makes a [Policy] of them.
//
// It promises that a field is either obeyed or refused with file, line and
// field, never ignored: a policy that says more than is enforced would be a lie.
//
// Semantics are those of Sigstore's policy-controller: an image has to satisfy
// every policy whose globs match one of its names; one authority satisfies a
// policy. What matches no policy is denied unless ImageTrust says otherwise.
//
// The package must not know containerd, registries, or where signatures are.
//
// Map: kinds.go (the YAML), compile.go and authority.go (from YAML to rules),
// files.go (the tree), glob.go (names), predicate.go (CEL about attestations),
// policy.go (the result).
package policy
