// Package image builds the appliance: an immutable system with nothing in it but a
// kernel, bothy and the container runtime.
//
// [Build] takes the binaries that `make build` leaves and packages of Debian that
// lock.yaml pins, and writes
//
//	NAME.efi        the boot file (UKI): stub, kernel, initramfs and command line in one
//	NAME.root       the root file system (erofs) with its hash tree (dm-verity)
//	NAME.raw        a disk: ESP, two slots for root file systems, data
//	NAME.iso        a medium to install from, for sticks and optical drives
//	NAME.qcow2      the same for virtual machines
//	NAME.oci/       boot file and root file system as an OCI artifact, for updates
//	NAME.spdx.json  what is inside
//	NAME.json       names, sizes and hashes of the above
//
// The command line in the boot file has the root hash of the tree, so that whoever
// vouches for the boot file vouches for every byte that runs.
//
// Promises: no root, no loop devices, no daemon, no program of the host but apt-get,
// dpkg-deb and xz; the same inputs give the same bytes. With keys for Secure Boot only
// the boot file that is on the disks is signed: the hashes of the unsigned one stay what
// they are without keys.
//
// It must not know how an image is started or updated.
//
// Map: build.go (the order of things); inputs.go (packages and tools); modules.go with
// flavours.yaml (what of a kernel goes in); root.go, stage1.go (the two file systems),
// uki.go, secureboot.go, disk.go, iso.go, qcow2.go, artifact.go, sbom.go (one format each);
// seed.go (a volume with boot configuration). Package fat writes FAT file systems.
package image
