#!/usr/bin/env bash
# Makes sure that what the given targets need is installed: deps.sh build|test|vm|image|appliance|generate|bench-net ...
#
# It says what it installs and why, does nothing when everything is there, and
# on a distribution it does not know it lists what is missing instead.
set -euo pipefail

# command or pkg-config module | Debian package | why | needed for
table='
cc|gcc|compiles runc and the pause image|build
ld-static|libc6-dev|links runc and pause statically|build
pkg-config|pkg-config|finds libseccomp|build
lib:libseccomp|libseccomp-dev|the system call filter in runc|build
git|git|the cluster is described by a Git repository|build
ssh-keygen|openssh-client|makes the key that signs your commits|build
mount|mount|mounts volumes into pods|build
gpg|gnupg|the tests sign commits with OpenPGP too|test
openssl|openssl|the tests sign commits with x509 certificates too|test
qemu-system-x86_64|qemu-system-x86|boots kernels to test on|vm
mke2fs|e2fsprogs|makes the disks of virtual machines|vm
mkfs.xfs|xfsprogs|makes file systems with project quotas|vm
xz|xz-utils|unpacks kernel modules|vm
/usr/share/keyrings/debian-archive-keyring.gpg|debian-archive-keyring|proves where the kernels come from|vm
apt-get|apt|fetches the packages of Debian that the operating system is made of|image
dpkg-deb|dpkg|unpacks them|image
xz|xz-utils|unpacks kernel modules|image
/usr/share/keyrings/debian-archive-keyring.gpg|debian-archive-keyring|proves where they come from|image
/usr/share/OVMF/OVMF_CODE_4M.fd|ovmf|firmware for virtual machines|appliance
mcopy|mtools|puts signed boot files on disks|appliance
openssl|openssl|opens the key of the test firmware|appliance
clang-19|clang-19|compiles the eBPF programs to the committed objects|generate
llvm-strip-19|llvm-19|removes debug sections from them|generate
/usr/include/bpf/bpf_helpers.h|libbpf-dev|declares the kernel functions they call|generate
nft|nftables|the rules of kube-proxy in its nftables mode|bench-net
iptables|iptables|the rules of kube-proxy in its iptables mode|bench-net
'

present() {
  case $1 in
  lib:*) command -v pkg-config >/dev/null && pkg-config --exists "${1#lib:}" ;;
  ld-static) [ -n "$(cc -print-file-name=libc.a 2>/dev/null | grep /)" ] ;;
  /*) [ -e "$1" ] ;;
  *) command -v "$1" >/dev/null ;;
  esac
}

check_go() {
  local want have
  want=$(awk '$1 == "go" { print $2; exit }' go.mod)
  if ! command -v go >/dev/null; then
    echo "Go is not installed: install Go $want or newer (https://go.dev/doc/install) and put it on PATH" >&2
    return 1
  fi
  # An older go command fetches the one that go.mod asks for, unless told not to.
  if ! have=$(go env GOVERSION 2>&1); then
    printf '%s\n' "$have" >&2
    echo "this project needs Go $want or newer: update Go, or allow it to fetch a newer one with GOTOOLCHAIN=auto" >&2
    return 1
  fi
}

purposes=" ${*:-build} "
missing=() reasons=()
while IFS='|' read -r what package why purpose; do
  [ -n "$what" ] && [[ $purposes == *" $purpose "* ]] || continue
  present "$what" && continue
  missing+=("$package") reasons+=("$(printf '  %-16s %s' "$package" "$why")")
done <<<"$table"

if [ ${#missing[@]} -gt 0 ]; then
  echo "missing on this machine:"
  printf '%s\n' "${reasons[@]}"
  if ! command -v apt-get >/dev/null; then
    echo "install their equivalents with your package manager, then run make again" >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    echo "installing them needs root: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "installing with: apt-get install --no-install-recommends ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
check_go
