// Package x509test makes certificate authorities, a transparency log, a
// time-stamp service and signatures of commits as gitsign and smimesign make
// them, for tests. Nothing of it needs a network.
//
// It is used by tests only.
//
// Map: authority.go (certificates), witness.go (log and time stamps),
// sign.go (CMS signatures).
package x509test
