package cni

import (
	"os"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// checkTarget finds what would fail later on, when half of the pod's connection has been made.
func checkTarget(req request) *types.Error {
	empty := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	if _, err := empty.GetAsVersion(req.cniVersion); err != nil {
		return types.NewError(types.ErrIncompatibleCNIVersion, "unsupported cniVersion", err.Error())
	}
	pod, err := os.Stat(req.netns)
	if err != nil {
		return types.NewError(types.ErrInvalidNetNS, "the pod's network namespace cannot be opened", err.Error())
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(req.netns, &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS is not a network namespace", req.netns)
	}
	if node, err := os.Stat("/proc/thread-self/ns/net"); err == nil && os.SameFile(pod, node) {
		return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS is the node's own network namespace", req.netns)
	}
	return nil
}
