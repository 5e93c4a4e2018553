#!/usr/bin/env bash
# Takes down nodes that an interrupted test or benchmark has left in build/run,
# and removes what they kept there, logs of failed tests included.
set -euo pipefail

[ -d build/run ] || exit 0
for record in build/run/*/state/sandbox.json build/run/*/*/state/sandbox.json; do
  [ -e "$record" ] || continue
  build/bin/bothy down --state "$(dirname "$record")" --purge
done
rm -rf build/run
