package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/bothy-os/bothy/netdata/cni/plugin"
	"github.com/bothy-os/bothy/netdata/cni/wire"
)

// record is what must be remembered of an attachment.
type record struct {
	wire.Attachment
	Pod    string `json:"pod,omitempty"`
	PodUID string `json:"podUID,omitempty"`
	Netns  string `json:"netns"`
	// Addrs are the pod's addresses, one of each family of the node. The first is its IP,
	// in the words of Kubernetes.
	Addrs []netip.Addr `json:"addrs"`
	// Dev is the host side of the veth pair.
	Dev string `json:"dev"`
	// Ports are those of the node that lead to the pod.
	Ports []wire.PortMapping `json:"ports,omitempty"`
}

func (r record) pod() Pod {
	namespace, name, _ := strings.Cut(r.Pod, "/")
	return Pod{Namespace: namespace, Name: name, UID: r.PodUID, Netns: r.Netns}
}

// records is a directory with one file per attachment.
type records struct {
	dir string
}

func (r records) path(a wire.Attachment) string {
	return filepath.Join(r.dir, plugin.NoteName(a)+".json")
}

// put writes a record. The directory is on a tmpfs, so there is nothing to sync:
// what matters is that a killed agent leaves no half of a file.
func (r records) put(rec record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode record of container %s: %w", rec.ContainerID, err)
	}
	if err := replaceFile(r.path(rec.Attachment), data, 0o600); err != nil {
		return fmt.Errorf("write record of container %s: %w", rec.ContainerID, err)
	}
	return nil
}

// get returns nil if there is no such record.
func (r records) get(a wire.Attachment) (*record, error) {
	data, err := os.ReadFile(r.path(a))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record of container %s: %w", a.ContainerID, err)
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.path(a), err)
	}
	if len(rec.Addrs) == 0 {
		return nil, fmt.Errorf("decode %s: it has no addresses", r.path(a))
	}
	return &rec, nil
}

func (r records) remove(a wire.Attachment) error {
	if err := os.Remove(r.path(a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of container %s: %w", a.ContainerID, err)
	}
	return nil
}

// all reads every record. Files that cannot be read are named in the error; the
// others are returned all the same.
func (r records) all() ([]record, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var out []record
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		a, ok := plugin.ParseNote(name)
		if !ok {
			continue
		}
		rec, err := r.get(a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if rec != nil {
			out = append(out, *rec)
		}
	}
	return out, errors.Join(errs...)
}

func replaceFile(path string, data []byte, perm fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, perm); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
