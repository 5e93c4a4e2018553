// Package signers decides who signed a Git commit.
//
// [ParseCommit] takes a raw commit object apart the way git does and keeps the
// exact bytes that were signed; every field of the result comes from those
// bytes, so that nothing outside the signature can influence a decision.
// [NewKeyring] turns the signers of a trust root into keys, and
// [Keyring.Verify] matches a commit's SSH or OpenPGP signature against them,
// offline. What is wrong comes back as an [Error] with a [Class], a problem and
// a remedy.
//
// Formats: git's commit object with the gpgsig header, OpenSSH PROTOCOL.sshsig
// with namespace "git", and RFC 9580/4880 detached signatures.
//
// The package must not know repositories, trust chains or what a commit
// changes: that is package acceptance of the reconciler.
//
// Map: commit.go (object → payload + signature), keyring.go (signers → keys),
// ssh.go and openpgp.go (one signature kind each), errors.go.
package signers
