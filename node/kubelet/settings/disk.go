package settings

import (
	"strconv"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// disks says when storage and memory count as full.
//
// Upstream evicts pods below 10 % free space and collects images above 85 %
// use. On a disk of 16 GB that is right; on the 500 GB disk of a developer who
// keeps it well filled it would evict everything with 50 GB free. So the
// threshold is a share of the disk, up to a fixed amount.
func disks(c *kubeletv1beta1.KubeletConfiguration, in Input) {
	free := strconv.FormatUint(evictionFree(in.Disk)/mebibyte, 10) + "Mi"
	c.EvictionHard = map[string]string{
		"memory.available":   "100Mi",
		"nodefs.available":   free,
		"imagefs.available":  free,
		"nodefs.inodesFree":  "3%",
		"imagefs.inodesFree": "3%",
	}
	// Evicting pods one by one for a few bytes each helps nobody.
	c.EvictionMinimumReclaim = map[string]string{"nodefs.available": "256Mi", "imagefs.available": "256Mi"}
	high := imageGCPercent(in.Disk)
	c.ImageGCHighThresholdPercent, c.ImageGCLowThresholdPercent = ptr(high), ptr(high-5)
}

const (
	minEvictionFree = 256 * mebibyte
	maxEvictionFree = 2048 * mebibyte
)

func evictionFree(disk uint64) uint64 {
	return max(minEvictionFree, min(disk/10, maxEvictionFree))
}

// imageGCPercent is the use of the disk at which unused images are removed:
// early enough that eviction is not reached first, which starts at 90 % or
// later.
func imageGCPercent(disk uint64) int32 {
	if disk == 0 {
		return 85
	}
	evictAt := 100 - int32(evictionFree(disk)*100/disk)
	return max(70, min(evictAt-3, 96))
}
