#!/usr/bin/env bash
# Runs one long command and says what it is doing: step.sh TITLE COMMAND...
#
# The command's output goes to build/log/; a line with the elapsed time appears
# every 15 seconds, and the end of the output when the command fails.
set -uo pipefail

title=$1
shift
mkdir -p build/log
log=build/log/$(tr -cs 'A-Za-z0-9' - <<<"$title" | sed 's/-*$//').log
start=$SECONDS
stamp() { printf '[%s] %s\n' "$(date +%T)" "$*"; }

stamp "$title ..."
: >"$log"
(
  while sleep 15 >/dev/null 2>&1; do
    stamp "$title: $((SECONDS - start)) s, $(wc -l <"$log") lines of output, now: $(tail -n 1 "$log" | cut -c1-80)"
  done
) &
heartbeat=$!
trap 'kill "$heartbeat" 2>/dev/null' EXIT

"$@" >"$log" 2>&1
status=$?
if [ $status != 0 ]; then
  tail -n 40 "$log" >&2
  stamp "$title: failed after $((SECONDS - start)) s; the whole output is in $log" >&2
  exit $status
fi
stamp "$title: done in $((SECONDS - start)) s"
