#!/usr/bin/env bash
# Lists the packages to test: packages.sh light|heavy
#
# Heavy packages link Kubernetes, etcd, containerd or CoreDNS: with the race
# detector each of those would be compiled a second time, for minutes. The
# suites under test/ run real nodes and have targets of their own.
set -euo pipefail

heavy='k8s.io/kubernetes/|go.etcd.io/etcd/server/|github.com/containerd/containerd/v2/cmd/|github.com/coredns/coredns/core/'
go list -test -f '{{if not .ForTest}}{{else}}{{.ForTest}} {{join .Deps ","}}{{end}}' ./... |
  awk -v heavy="$heavy" -v kind="$1" '
    NF { is[$1] = is[$1] || $2 ~ heavy }
    END { for (p in is) if (p !~ /\/test\/(cluster|bench|vm)(\/|$)/ && is[p] == (kind == "heavy")) print p }' |
  sort
