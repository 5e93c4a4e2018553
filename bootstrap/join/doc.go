// Package join gives worker nodes their certificates.
//
// A control plane serves one request over TLS 1.3, in which both sides prove who they are with
// their machines' identities and each pins the other's: the worker knows the control plane's from the
// commit that it has verified itself, the control plane knows the worker's from the commit that it runs.
// The worker sends requests for keys that it has made; what is in the certificates is decided by the
// [Server] alone, from what the commit says about that machine. They live for a day and are renewed the
// same way, so that a machine that left the repository has nothing soon, and is refused at once.
//
// Promises: no key ever leaves the machine that made it, a CA's least of all; a machine gets
// certificates for its own name and addresses only; every refusal is one sentence, the same in
// the answer and in the log. The server bounds what a stranger can cost it: connections, bytes, time.
//
// The package must not know Git, nor what the certificates are used for.
//
// Map: protocol.go is what is said, grant.go decides, server.go listens, client.go asks, keeper.go is a worker's
// component.
package join
