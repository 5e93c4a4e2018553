#!/usr/bin/env bash
# Builds busybox for the images of the suite: build.sh OUT
#
# The suite's own images have the upstream release in its default configuration. Distributions change what specs look
# at: Debian's shell, for one, drops variables whose names are none in a script. So this takes the upstream archive out of
# Debian's source package, leaves Debian's patches where they are, and links statically. apt proves where the archive
# comes from, and the checksum below which one it is.
set -euo pipefail

release=1.37.0
checksum=3311dff32e746499f4df0d5df04d7eb396382d7e108bb9250e7b519b837043a4
suite=trixie

out=$(mkdir -p "$(dirname "$1")" && cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# A list of sources of its own: few machines have those of source packages, and of this suite.
mkdir -p lists/partial cache
cat >source.sources <<EOF
Types: deb-src
URIs: http://deb.debian.org/debian
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/source.sources" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
"${apt[@]}" source --download-only busybox
sha256sum -c <<<"$checksum  busybox_$release.orig.tar.bz2" || {
  echo "$suite has another release of busybox than $release: update release and checksum in tools/e2e/busybox/build.sh to that of the suite's image" >&2
  exit 1
}

tar -xjf "busybox_$release.orig.tar.bz2"
cd "busybox-$release"
make -s defconfig
# tc does not compile with the headers of Linux 6.8 and later, and no spec uses it.
sed -i -e 's/^# CONFIG_STATIC is not set$/CONFIG_STATIC=y/' -e 's/^CONFIG_TC=y$/# CONFIG_TC is not set/' .config
{ yes '' || true; } | make -s oldconfig >/dev/null # yes ends with a broken pipe
grep -qx CONFIG_STATIC=y .config
make -j2 busybox
cp busybox "$out"
