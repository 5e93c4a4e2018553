// Package acceptance decides which commit may become the cluster.
//
// A commit C is accepted if and only if
//
//  1. the last accepted commit A lies on C's first-parent path,
//  2. every commit after A on that path is signed by a signer whom the trust
//     root in its first parent lists: a change of trust/root.yaml is authorised
//     by the root it replaces, and a removed key is dead at once,
//  3. each of these commits changes only what its signer may change by the
//     rules of that root, with as many signers as they ask for,
//  4. the version in trust/root.yaml never decreases.
//
// Where no commit was accepted yet, the path starts at the newest commit whose
// trust root equals the one in the boot configuration and that is signed by a
// signer of it who may change everything that commit holds. Everything else is
// a [Refusal]: a value with commit, rule, problem and remedy. Whatever cannot
// be decided is refused.
//
// What was accepted is a [Record], written durably before anything of the
// commit is used. It carries the trust root in force, so that the chain
// survives the loss of the mirror.
//
// The package must not know where objects come from (it reads [Objects]) or
// what is done with an accepted commit.
//
// Map: verify.go (the path), step.go (one commit against its parent),
// anchor.go (first boot), rules.go (paths and thresholds), diff.go (what a
// commit changes), history.go (cached reading), record.go, refusal.go.
package acceptance
