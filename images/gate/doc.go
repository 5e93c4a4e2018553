// Package gate decides, on a node, what may run.
//
// A [Gate] follows a file into which the agent writes the image policy of the
// accepted commit ([Write]), and has the signatures that came with the images.
// It is asked by containerd's guards (images/enforce), by admission
// (images/admission) and by the importer, all in one process, and all get the
// same answer.
//
// It promises to fail closed. A policy is in force from the first question on;
// a changed one from the first question after the change, without a restart and
// without a watch: each question looks at the file's identity. A file that is
// missing or cannot be read denies everything; a site without a policy has a
// file that says so. Only an image that was allowed is remembered, in memory,
// by its digests, its name and the policy.
//
// The package must not know containerd or Kubernetes.
package gate
