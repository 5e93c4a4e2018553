package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// owned are the entries a node makes in its state directory. Purging removes
// these and nothing else, so that a state directory given by mistake (a home
// directory, say) does not lose what is not ours.
var owned = []string{
	recordFile, "lock", "boot.yaml", "kubeconfig",
	"git", "trust", "pki", "etcd", "containerd", "kubelet", "cni", "images", "volumes", "netdata", "audit", "logs", "os", "machine", segmentFile,
}

func removeState(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, recordFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := refuseMounts(dir); err != nil {
		return err
	}
	// The record goes last: while it is there the directory is known as ours
	// and an interrupted purge can be repeated.
	for i := len(owned) - 1; i >= 0; i-- {
		if err := os.RemoveAll(filepath.Join(dir, owned[i])); err != nil {
			return fmt.Errorf("purge state: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil {
		left, _ := os.ReadDir(dir)
		names := make([]string, 0, len(left))
		for _, e := range left {
			names = append(names, e.Name())
		}
		return fmt.Errorf("state directory %s holds files that are not bothy's and were kept: %s", dir, strings.Join(names, ", "))
	}
	return nil
}

// refuseMounts makes sure that nothing mounted below dir is deleted with it.
func refuseMounts(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			return fmt.Errorf("%s is still mounted: unmount it first", fields[4])
		}
	}
	return nil
}
