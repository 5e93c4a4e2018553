package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// withHistory makes a repository whose large file changed often, and lets the
// server leave files out.
func withHistory(t *testing.T) (r *gittest.Repo, oldFile, newFile string) {
	t.Helper()
	r = gittest.NewRepo(t)
	r.Git("config", "uploadpack.allowFilter", "true")
	r.Git("config", "uploadpack.allowAnySHA1InWant", "true")
	for i := range 20 {
		r.Write("large", noise(i, 50_000))
		r.Write("dir/small", fmt.Sprint(i))
		r.Commit(nil, "change")
		if i == 0 {
			oldFile = strings.TrimSpace(r.Git("rev-parse", "HEAD:large"))
		}
	}
	return r, oldFile, strings.TrimSpace(r.Git("rev-parse", "HEAD:large"))
}

// noise is text that can neither be compressed well nor be a delta of other
// noise.
func noise(seed, n int) string {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

func TestPartialClone(t *testing.T) {
	r, oldFile, newFile := withHistory(t)
	down := atomic.Bool{}
	url := serve(t, r, func(*http.Request) bool { return !down.Load() })
	dir := filepath.Join(t.TempDir(), "git")
	m, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, m, url)
	whole := open(t, mirror.Limits{})
	if _, err := whole.Fetch(context.Background(), mirror.Remote{URL: url, Branch: "main", Full: true}); err != nil {
		t.Fatal(err)
	}
	if !m.Has(newFile) || m.Has(oldFile) || !whole.Has(oldFile) {
		t.Fatalf("newest file %t, old file %t, old file of a whole clone %t", m.Has(newFile), m.Has(oldFile), whole.Has(oldFile))
	}
	for object := range strings.SplitSeq(strings.TrimSpace(r.Git("rev-list", "--objects", "--filter=blob:none", "main")), "\n") {
		if id, _, _ := strings.Cut(object, " "); !m.Has(id) {
			t.Errorf("%s is missing", object)
		}
	}

	// A revert makes an old file new again, which the server believes to be there.
	r.Write("large", noise(3, 50_000))
	reverted := r.Commit(nil, "revert")
	if tip := fetch(t, m, url); tip != reverted || !m.Has(strings.TrimSpace(r.Git("rev-parse", "HEAD:large"))) {
		t.Error("the file of a revert is not there")
	}

	// Without the server an old file is not there, which is no damage.
	down.Store(true)
	if _, err := m.Object(mirror.BlobObject, oldFile); !errors.Is(err, mirror.ErrNotFetched) || errors.Is(err, mirror.ErrCorrupt) || !strings.Contains(err.Error(), "credentialsFile") {
		t.Errorf("error %v", err)
	}
	down.Store(false)
	again, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, again, url)
	if data, err := again.Object(mirror.BlobObject, oldFile); err != nil || string(data) != noise(0, 50_000) {
		t.Errorf("an old file: %d bytes, %v", len(data), err)
	}
}

// TestPartialCloneBroken lets a server promise single files and then refuse
// them: everything is fetched instead.
func TestPartialCloneBroken(t *testing.T) {
	r, oldFile, newFile := withHistory(t)
	requests := atomic.Int32{}
	url := serve(t, r, func(req *http.Request) bool {
		return req.Method != http.MethodPost || requests.Add(1) != 2
	})
	m := open(t, mirror.Limits{})
	fetch(t, m, url)
	if !m.Has(newFile) || !m.Has(oldFile) {
		t.Error("files are missing")
	}
}

// TestPartialSaves reports what leaving out the files of older commits saves.
func TestPartialSaves(t *testing.T) {
	if testing.Short() {
		t.Skip("a long history")
	}
	r := largeRepo(t)
	r.Git("config", "uploadpack.allowFilter", "true")
	r.Git("config", "uploadpack.allowAnySHA1InWant", "true")
	url := serve(t, r, nil)
	var sizes []int64
	for _, full := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "git")
		m, err := mirror.Open(dir, mirror.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Fetch(context.Background(), mirror.Remote{URL: url, Branch: "main", Full: full}); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, size(t, dir))
	}
	t.Logf("whole clone %d KiB, partial clone %d KiB", sizes[0]>>10, sizes[1]>>10)
	if sizes[1] >= sizes[0] {
		t.Error("nothing was saved")
	}
}
