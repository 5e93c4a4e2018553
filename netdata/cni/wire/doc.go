// Package wire is what the CNI plugin binary and the agent say to each other:
// one JSON request and one JSON answer over HTTP on a unix socket.
//
// It is a package of its own so that the plugin binary stays small: it must import nothing
// but the CNI types.
package wire
