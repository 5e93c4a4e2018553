// Package gitserver is a Git server for tests and benchmarks, which serves the
// repositories of a directory with git's own http-backend and misbehaves on
// demand.
//
// It listens with TLS on an address that exists for it alone, on the loopback
// link of this machine, so that nodes in namespaces of their own reach it and no
// other machine does; and without TLS on 127.0.0.1, for clients on this machine.
//
// It promises that a fault is in force for every request that begins after
// [Server.Misbehave] returned. It must not know who asks.
//
// Map: server.go (TLS, git), fault.go (what can go wrong), ssh.go (the same over
// SSH), address.go.
package gitserver
