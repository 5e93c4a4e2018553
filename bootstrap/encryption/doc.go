// Package encryption keeps the keys by which the API server encrypts Secrets in
// etcd, and replaces them.
//
// The keys and the state of a rotation are one file, the [Ring]. The API
// server's configuration is a pure function of it. A [Rotator] takes the ring
// through the steps of a rotation and writes it durably between any two, so
// that a rotation cut short by a crash goes on where it was:
//
//	stable ──new key──▶ added ──loaded──▶ promoted ──all rewritten──▶ stable
//	 old                old,new            new,old    and verified     new
//
// A key is dropped only after every stored Secret has been seen to carry the
// prefix of the new one, read from etcd itself and not through the API.
//
// The cipher is XSalsa20-Poly1305 ("secretbox"): its 24-byte random nonces need
// no limit on the number of writes, as AES-GCM's do. Unencrypted values are not
// accepted back.
//
// The package knows the format of the API server's configuration, but neither
// Kubernetes libraries nor etcd: the [Store] is handed to it.
package encryption
