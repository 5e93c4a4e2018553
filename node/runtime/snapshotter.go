package runtime

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
)

// chooseSnapshotter prefers overlayfs. Where the file system below root cannot
// carry it, images are copied whole for every container: slow and large, but
// the node works, and the log says what to change. A choice is kept: snapshots
// of one kind are of no use to the other.
func chooseSnapshotter(root string, log *slog.Logger) (string, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", fmt.Errorf("make containerd's directory: %w", err)
	}
	err := overlayutils.Supported(root)
	if err == nil {
		return overlayfs, nil
	}
	if _, statErr := os.Stat(filepath.Join(root, snapshotters+overlayfs)); statErr == nil {
		return "", fmt.Errorf("%s holds overlayfs snapshots, but overlayfs does not work there any more: %w; mount the file system it was on, or remove the directory", root, err)
	}
	log.Warn("overlayfs does not work here, so every container gets a full copy of its image; put the state directory on ext4 or xfs (ftype=1)", "dir", root, "err", err)
	return native, nil
}
