// Package settings decides how the kubelet is configured.
//
// [Configuration] is a pure function from what is known about the cluster and
// the machine to upstream's versioned KubeletConfiguration, so that every
// choice can be read and tested without a kubelet. Each value that differs
// from upstream's default says why.
//
// The package must not import the kubelet itself, nor look at the machine:
// package kubelet does both.
//
// Map: settings.go is the configuration; reserve.go says what the node keeps
// for itself; disk.go says when disks count as full.
package settings
