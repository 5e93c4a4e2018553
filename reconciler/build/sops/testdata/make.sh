#!/bin/sh
# Encrypts plain/ into encrypted/ with the sops program (3.13), for the keys in
# keys/. Those keys are for tests only and guard nothing. Needs sops and gpg.
set -eu
cd "$(dirname "$0")"
recipient() { sed -n 's/^# public key: //p' "keys/$1"; }
age=$(recipient test-only.agekey)
other=$(recipient test-only-other.agekey)
pq=$(recipient test-only-pq.agekey)
GNUPGHOME=$(mktemp -d)
export GNUPGHOME
trap 'gpgconf --kill gpg-agent; rm -rf "$GNUPGHOME"' EXIT
gpg --quiet --batch --import keys/test-only.asc
pgp=$(gpg --list-keys --with-colons | sed -n 's/^fpr:*\([0-9A-F]*\):$/\1/p' | head -1)
enc() { # name options file
	out=$1
	shift
	sops --config /dev/null encrypt --output "encrypted/$out" "$@"
}
for f in all.yaml documents.yaml all.json all.env all.ini all.txt; do
	enc "age-$f" --age "$age" "plain/$f"
	enc "pgp-$f" --pgp "$pgp" "plain/$f"
done
enc pq-all.yaml --age "$pq" plain/all.yaml
enc ssh-all.yaml --age "$(cut -d' ' -f1,2 keys/test-only-ssh.agekey.pub)" plain/all.yaml
enc rsa-all.yaml --age "$(cut -d' ' -f1,2 keys/test-only-rsa.agekey.pub)" plain/all.yaml
enc two-all.yaml --age "$other,$age" plain/all.yaml
enc encrypted-regex-all.yaml --age "$age" --encrypted-regex '^(data|stringData)$' plain/all.yaml
enc unencrypted-regex-all.yaml --age "$age" --unencrypted-regex '^(metadata|kind|apiVersion)$' plain/all.yaml
enc encrypted-suffix-all.yaml --age "$age" --encrypted-suffix Data plain/all.yaml
enc unencrypted-suffix-all.yaml --age "$age" --unencrypted-suffix data plain/all.yaml
ruled() { # name options-of-the-rule file
	printf 'creation_rules:\n- age: %s\n' "$age" >"$GNUPGHOME/sops.yaml"
	printf '  %s\n' "$2" >>"$GNUPGHOME/sops.yaml"
	[ -z "${4-}" ] || printf '  %s\n' "$4" >>"$GNUPGHOME/sops.yaml"
	sops --config "$GNUPGHOME/sops.yaml" encrypt --output "encrypted/$1" "$3"
}
ruled encrypted-comment-all.yaml 'encrypted_comment_regex: about the password' plain/all.yaml
ruled unencrypted-comment-all.yaml 'unencrypted_comment_regex: about the password|in the list' plain/all.yaml
ruled mac-only-encrypted-all.yaml 'mac_only_encrypted: true' plain/all.yaml 'encrypted_regex: ^stringData$'
cat >"$GNUPGHOME/sops.yaml" <<YAML
creation_rules:
- shamir_threshold: 2
  key_groups:
  - age: [$age]
  - age: [$other]
  - pgp: [$pgp]
YAML
for f in all.yaml all.env all.ini; do
	sops --config "$GNUPGHOME/sops.yaml" encrypt --output "encrypted/shamir-$f" "plain/$f"
done
# What sops gives back is the reference, byte for byte.
export SOPS_AGE_KEY_FILE="keys/test-only.agekey"
mkdir -p decrypted
for f in all.yaml documents.yaml all.json all.env all.ini all.txt; do
	sops decrypt --output "decrypted/$f" "encrypted/age-$f"
done
for f in encrypted/*encrypted-*; do
	sops decrypt --output "decrypted/$(basename "$f")" "$f"
done
