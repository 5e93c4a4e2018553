// Package pki makes and keeps the keys and certificates of one cluster.
//
// There are two certificate authorities, both ECDSA P-256 and valid for ten
// years: the cluster CA, which signs serving and client certificates, and the
// front-proxy CA, which signs the one certificate whose bearer may speak for
// other users towards aggregated API servers. Leaves live for thirty days and
// are renewed when two thirds of that are over, with a fresh key each time. A
// further key signs service account tokens.
//
// [Store.Ensure] brings the directory to the desired state: it makes what is
// missing, re-issues a leaf that is damaged, expired, due or no longer as
// specified, and otherwise writes nothing. It is called at start and then on a
// timer. What it cannot repair without harm is one clear error: a damaged
// cluster CA never leads to a new one as long as the cluster may exist.
//
// Machines without a battery-backed clock boot in 1970 and jump. Certificates
// are therefore issued so that they are valid both by the clock as it is and
// by the best knowledge of the true time (see clock.go).
//
// The package must not know Kubernetes libraries, nor who runs it.
//
// Nodes without a control plane have the same directory, without any CA: an
// [Issuer] elsewhere signs for keys that they make, for a day only, and a
// [MemberStore] keeps what they got.
//
// Map: spec.go says which certificates there are, authority.go holds a CA,
// leaf.go signs and judges leaves, store.go is the directory, kubeconfig.go
// writes kubeconfigs, clock.go is about time; issuer.go and member.go are for
// nodes without a control plane.
package pki
