#!/usr/bin/env bash
# Stops the cluster of `make up` and removes it: down.sh STATE
#
# Commits of your own in .bothy/repo are work: then the repository, its remote
# and its key stay, and the next `make up` starts from them.
set -euo pipefail

state=$1
if [ -e "$state" ]; then
  [ -x build/bin/bothy ] || make build
  build/bin/bothy down --state "$state" --purge
fi

own_work() {
  local made
  made=$(cat .bothy/template-commit 2>/dev/null) || return 1
  [ -n "$(git -C .bothy/repo status --porcelain 2>/dev/null)" ] && return 0
  [ "$(git -C .bothy/repo rev-parse HEAD 2>/dev/null)" != "$made" ] && return 0
  git -C .bothy/repo.git for-each-ref --format='%(objectname)' | grep -qv "$made"
}

[ -d .bothy ] || exit 0
if own_work; then
  echo "kept .bothy/repo, .bothy/repo.git and .bothy/keys: they hold changes of yours (rm -rf .bothy removes them)"
else
  rm -rf .bothy
fi
