package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, root := range keptState(dir) {
		err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return nil //nolint:nilerr // what is not there has no files
			}
			data, err := os.ReadFile(path)
			out[strings.TrimPrefix(path, dir)] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func put(t *testing.T, dir, path, text string) {
	t.Helper()
	file := filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStateIsPutBack(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "os/update/snapshot")
	put(t, dir, "etcd/member/snap/db", "old data")
	put(t, dir, "etcd/member/wal/1", "old log")
	put(t, dir, "pki/encryption-keys.json", "old keys")
	put(t, dir, "boot.yaml", "old settings")
	put(t, dir, "trust/accepted.json", "old trust")
	before := tree(t, dir)
	put(t, dir, "os/update/snapshot.partial/etcd/rest", "of a loss of power")
	if err := keepState(dir, kept); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "etcd/member/snap/db", "new data")
	put(t, dir, "etcd/member/wal/2", "new log")
	put(t, dir, "pki/encryption-keys.json", "new keys")
	put(t, dir, "trust/accepted.json", "new trust")
	// Cut off anywhere, and done again.
	put(t, dir, "etcd.restored/member/snap/db", "half")
	if err := os.RemoveAll(filepath.Join(dir, "etcd/member/wal")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := restoreState(kept, dir); err != nil {
			t.Fatal(err)
		}
		after := tree(t, dir)
		if len(after) != len(before) {
			t.Errorf("%v is not %v", after, before)
		}
		for path, text := range before {
			if after[path] != text {
				t.Errorf("%s is %q, not %q", path, after[path], text)
			}
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "trust/accepted.json")); err != nil || string(data) != "new trust" {
		t.Error("what was accepted went back")
	}
	if err := restoreState(filepath.Join(dir, "nothing"), dir); err == nil {
		t.Error("nothing was put back, and that is no error")
	}
}

func TestWhatDoesNotFitIsNotKept(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "etcd/member/snap/db", "")
	if err := os.Truncate(filepath.Join(dir, "etcd/member/snap/db"), 1<<50); err != nil {
		t.Skip(err)
	}
	err := keepState(dir, filepath.Join(dir, "kept"))
	if err == nil || !strings.Contains(err.Error(), "MiB are free") {
		t.Errorf("%v", err)
	}
}
