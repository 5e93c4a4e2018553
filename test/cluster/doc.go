// Package cluster boots real nodes for tests, the way an operator does: with
// the bothy command, from a real Git repository with really signed commits,
// and looks at them with the real kubectl.
//
// The scenarios are in sub-packages, one per subject, and read like stories:
//
//	lifecycle   up, down, what is left behind, broken inputs
//	gitops      push, refuse, prune, a repository that goes away
//	workloads   what Kubernetes promises: kubectl, controllers, volumes, quotas
//	policy      NetworkPolicy: who gets through, what is cut, that nothing leaks
//	images      the image policy: what was not signed does not run, whoever asks
//	flux        the flux command, and a repository made for Flux
//	chaos       kill -9 of the agent while commits arrive, a Git server that misbehaves
//	crash       kill -9 of bothy's processes under load
//	nodes       workers that join and leave, and what crosses between nodes
//	network     the dataplane while agents, Kubernetes and endpoints come and go
//
// Everything needs root and the binaries of `make build`; without them the
// tests are skipped and say so. A [Node] lives in a directory of its own below
// build/run and is taken down with the test that made it; [TakeSnapshot] proves
// that it left nothing. Nothing here sleeps: [Eventually] waits for a condition
// with a deadline and says what it was waiting for.
//
// The package uses the product through its commands only and imports none of
// its packages, so that a test sees what a user sees.
package cluster
