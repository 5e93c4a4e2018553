#!/usr/bin/env bash
# image-reproducible.sh DIR NAME BUILD...: run BUILD with another directory, and fail unless it
# makes what is in DIR under NAME, byte for byte.
set -euo pipefail

dir=$1 name=$2
shift 2
again=$(mktemp -d "${TMPDIR:-/tmp}/bothy-image.XXXXXX")
trap 'rm -rf "$again"' EXIT

"$@" --out "$again" >/dev/null
for file in "$dir/$name".{efi,root,raw,iso,qcow2,spdx.json,json}; do
	if ! cmp "$file" "$again/$(basename "$file")"; then
		echo "two builds differ: the same binaries gave another ${file##*/}" >&2
		exit 1
	fi
done
diff -r "$dir/$name.oci" "$again/$name.oci"
(cd "$dir" && sha256sum "$name".{efi,root,raw,iso,qcow2})
echo "two builds in different directories are the same, byte for byte"
