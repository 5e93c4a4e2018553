package bootstrap

import (
	"fmt"
	"strings"

	etcdversion "go.etcd.io/etcd/api/v3/version"

	"github.com/bothy-os/bothy/internal/version"
)

// Format names the versions of etcd and Kubernetes that decide in what form the cluster's
// state is kept: an older minor version of either need not be able to read it.
func Format() string {
	return fmt.Sprintf("etcd %s, kubernetes %s", minor(etcdversion.Version), minor(version.Kubernetes))
}

func minor(v string) string {
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// NewerFormat says whether a format may be one that the other cannot read. What cannot be
// understood counts as newer.
func NewerFormat(format, than string) bool {
	var a, b [4]int
	const pattern = "etcd %d.%d, kubernetes %d.%d"
	if _, err := fmt.Sscanf(than, pattern, &b[0], &b[1], &b[2], &b[3]); err != nil {
		return format != than
	}
	if _, err := fmt.Sscanf(format, pattern, &a[0], &a[1], &a[2], &a[3]); err != nil {
		return true
	}
	newer := func(major, minor, thanMajor, thanMinor int) bool {
		return major > thanMajor || major == thanMajor && minor > thanMinor
	}
	return newer(a[0], a[1], b[0], b[1]) || newer(a[2], a[3], b[2], b[3])
}
