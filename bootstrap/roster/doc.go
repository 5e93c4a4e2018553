// Package roster is the list of the machines that are part of the cluster, as the accepted commit has it.
//
// The agent makes a [Roster] from each accepted commit, answers joining machines by it, and writes it to a
// file. The API server's process looks at the file through a [Reader] whenever a worker asks
// for something, so that a machine that left the repository is cut off with its next request
// and not when its certificates expire.
//
// Promises: what cannot be read counts as nobody being enrolled; a Reader never returns
// content older than the file.
//
// The package must not know certificates, HTTP or Kubernetes.
package roster
