// Package sops decrypts what SOPS encrypted, with age and OpenPGP keys.
//
// It reads the format of SOPS 3: YAML, JSON, dotenv, INI and binary files;
// values of every type, comments; the rules that leave some values in the
// clear; key groups with Shamir's threshold. age keys are X25519, the
// post-quantum hybrid and SSH keys.
//
// It promises that nothing is given out whose integrity was not checked: each
// value is bound to its path and all of them to the file by SOPS's message
// authentication code, which is never skipped. An error names recipients and
// paths inside the file; it never holds plain text. It needs no program, no
// agent, no network and no file.
//
// SOPS's own module would do the same and more, at a price: it links the
// clients of every cloud's key service, about sixty megabytes, and decrypts
// OpenPGP by running gpg. Keys in a cloud are the difference; an error says so.
//
// The package must not know Kubernetes.
//
// Map: decrypt.go (the whole), format.go (which files), documents.go (several
// documents in one), tree.go (content), yaml.go, json.go, dotenv.go, ini.go
// (files to content and back), metadata.go and rules.go (what the sops entry
// says), keys.go, age.go, openpgp.go and shamir.go (the data key), cipher.go
// (values).
package sops
