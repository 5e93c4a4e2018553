// Package identity is who a machine is to the other machines of its cluster.
//
// A machine makes an ed25519 key when it first needs one, below its state directory, and never
// changes it. The key's fingerprint stands in a signed Machine object; that is the whole
// enrolment, and there are no tokens. Machines recognise each other by [Identity.Certificate], a
// self-signed certificate whose only meaning is the key in it: names, issuers and dates in it are ignored.
//
// Promises: a key that is there is never replaced, a damaged one is an error; the private key
// leaves neither the file nor the process.
//
// The package must not know what is said between machines, nor who is enrolled.
package identity
