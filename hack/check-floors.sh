#!/usr/bin/env bash
# Proves that the linter holds the floors of docs/architecture.md: in a toy tree
# with the real configuration, every forbidden import must be reported, and no
# other: check-floors.sh GOLANGCI_LINT
set -euo pipefail

lint=$(realpath "$1")
module=github.com/bothy-os/bothy
wings='bootstrap reconciler node netdata images os'
forbidden='
api agent
internal bootstrap
agent cmd/bothy
cmd/bothy node
cmd/bothy-cni agent
cmd/bothy-cni netdata/services
cmd/bothy-init os/image
test/cluster agent
'
allowed='
api internal
internal api
agent api
cmd/bothy agent
cmd/bothy-cni netdata/cni
cmd/bothy-init os/boot
test/cluster api
'
for from in $wings; do
  allowed+="$from api"$'\n'"$from internal"$'\n'"$from $from"$'\n'"agent $from"$'\n'
  forbidden+="$from agent"$'\n'
  for to in $wings; do
    [ "$from" = "$to" ] || forbidden+="$from $to"$'\n'
  done
done

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cp .golangci.yml "$tree/"
printf 'module %s\n\ngo 1.26\n' "$module" >"$tree/go.mod"

# Importers and imported are packages of their own, so that no circle arises.
while read -r from to; do
  [ -n "$from" ] || continue
  mkdir -p "$tree/$from/importer" "$tree/$to/imported"
  printf 'package imported\n' >"$tree/$to/imported/doc.go"
  printf 'package importer\n\nimport _ "%s"\n' "$module/$to/imported" >"$tree/$from/importer/$(tr / _ <<<"$to").go"
done <<<"$forbidden$allowed"

want=$(awk -v m="$module" 'NF { t = $2; gsub("/", "_", t); print $1 "/importer/" t ".go: " m "/" $2 "/imported" }' <<<"$forbidden" | sort)
out=$(cd "$tree" && "$lint" run --allow-parallel-runners --enable-only depguard --output.text.print-issued-lines=false --output.text.colors=false ./... 2>&1) || true
got=$(sed -nE "s#^(.*):[0-9]+:[0-9]+: import '([^']*)' is not allowed.*#\1: \2#p" <<<"$out" | sort)
if ! diff <(echo "$want") <(echo "$got"); then
  tail -n 5 <<<"$out" >&2
  echo "the imports above are refused or allowed against the table (< should be refused, > should not)" >&2
  exit 1
fi
echo "floors: $(wc -l <<<"$want") forbidden imports are refused, $(grep -c . <<<"$allowed") others allowed"
