#!/usr/bin/env bash
# Runs every fuzz target in the tree, one after the other: fuzz.sh TIME
set -euo pipefail

found=0
while IFS=: read -r file line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$line")
  echo "== $target in $(dirname "$file"), for $1"
  # Without a bound, making one interesting input smaller takes a minute of the time.
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 1s "./$(dirname "$file")"
  found=$((found + 1))
done < <(grep -rE --include='*_test.go' --exclude-dir=build '^func Fuzz' . | sed 's#^\./##')
[ $found -gt 0 ] || { echo "there are no fuzz targets" >&2; exit 1; }
echo "$found fuzz targets ran"
