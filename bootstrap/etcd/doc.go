// Package etcd runs the embedded etcd of a single-node control plane.
//
// It listens on unix sockets in a directory of mode 0700 and nowhere else: who
// can open the socket may do anything to the cluster. Every acknowledged write
// is in the write-ahead log and fsynced; what is slowed down is only the copy
// into the database file, which the log can always make up for.
//
// etcd reports damage to its data by ending the process. Here that becomes an
// error which names the directory and what to do.
//
// The package must not know Kubernetes.
//
// Map: server.go starts and stops etcd, check.go looks at
// the database first, log.go carries etcd's log lines over.
package etcd
