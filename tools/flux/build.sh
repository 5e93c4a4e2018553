#!/usr/bin/env bash
# Builds one program of Flux from its pinned module: build.sh flux|source-controller|kustomize-controller OUT
#
# A copy of the module is the main module of the build, so that its own go.mod
# and go.sum apply, replacements included, and the program has the dependencies
# of Flux's release. The copy gets what the module's zip lacks: the manifests
# that flux embeds (the tests install nothing with it, so an empty one does),
# and the API module that a controller expects beside itself.
set -euo pipefail

name=$1
out=$2
here=$(cd "$(dirname "$0")" && pwd)
copy=$(dirname "$out")/../flux/$name

module_dir() {
  go -C "$here" mod download -json "$1" | awk -F'"' '$2 == "Dir" { print $4 }'
}

copy_module() {
  mkdir -p "$2"
  cp -r --no-preserve=mode "$(module_dir "$1")/." "$2"
}

rm -rf "$copy"
case $name in
flux)
  copy_module github.com/fluxcd/flux2/v2 "$copy"
  mkdir -p "$copy/cmd/flux/manifests"
  echo '# the manifests of a release are not part of the module' >"$copy/cmd/flux/manifests/none.yaml"
  package=./cmd/flux
  version="-X main.VERSION=$(awk '$1 == "github.com/fluxcd/flux2/v2" { print substr($2, 2) }' "$here/go.mod")"
  ;;
*)
  copy_module "github.com/fluxcd/$name" "$copy"
  copy_module "github.com/fluxcd/$name/api" "$copy/api"
  package=.
  version=
  ;;
esac
mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
CGO_ENABLED=0 go -C "$copy" build -v -ldflags "-s -w $version" -o "$out" "$package"
