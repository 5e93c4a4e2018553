// Package repository makes the Git repository that a site boots from.
//
// [Init] copies a template directory, writes trust/root.yaml with the user's
// signing key, commits with the real git so that the commit is signed exactly
// as later ones will be, and sets the repository up so that a plain
// "git commit" signs and "git log --show-signature" verifies. Beside it a bare
// repository can be made that the site fetches from and people push to.
//
// It runs git, ssh-keygen and gpg, which a node never does: this is for the
// command line of a person. It changes nothing outside the directories it is
// given and refuses those that hold something already.
//
// Map: init.go (the steps), key.go (choosing and making the key), template.go
// (copying), snapshot.go (a commit and its Git bundle), program.go (running programs).
package repository
