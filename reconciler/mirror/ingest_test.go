package mirror_test

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// packObjects packs what revs name, as git push does.
func packObjects(t testing.TB, r *gittest.Repo, revs string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.Dir, "pack-objects", "--stdout", "--revs", "-q"}, args...)...)
	cmd.Stdin = strings.NewReader(revs + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIngest(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Write("large", noise(1, 100_000))
	first := r.Commit(nil, "first")
	dir := filepath.Join(t.TempDir(), "git")
	m, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, m, r.Dir)
	r.Write("large", noise(1, 100_000)+"more")
	second := r.Commit(nil, "second")
	r.Write("other", "x")
	third := r.Commit(nil, "third")
	ctx := context.Background()

	thin := packObjects(t, r, second+"\n^"+first, "--thin", "--delta-base-offset")
	if len(thin) > 10_000 {
		t.Fatalf("git made no thin pack: %d bytes", len(thin))
	}
	if err := m.Ingest(ctx, bytes.NewReader(packObjects(t, r, third+"\n^"+second)), third); err == nil || !strings.Contains(err.Error(), "did not send object") {
		t.Errorf("a pack whose parent is missing: %v", err)
	}
	if err := m.Ingest(ctx, bytes.NewReader(thin), third); err == nil || m.Has(second) {
		t.Errorf("a pack without its tip: %v", err)
	}
	if err := m.Ingest(ctx, bytes.NewReader(thin), second); err != nil {
		t.Fatal(err)
	}
	if err := m.Ingest(ctx, nil, second); err != nil {
		t.Errorf("nothing to send: %v", err)
	}
	if tip, err := m.Tip("main"); err != nil || tip != first {
		t.Errorf("the branch moved to %s, %v", tip, err)
	}
	whole(t, r, m, second)
	// A thin pack was made complete.
	r.Git("--git-dir="+dir, "fsck", "--full", "--strict")

	// What the mirror hands on, git takes.
	other := gittest.NewRepo(t)
	var pack bytes.Buffer
	if err := m.Pack(ctx, &pack, []string{second}, nil); err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command("git", "-C", other.Dir, "index-pack", "--stdin", "--strict")
	unpack.Stdin = &pack
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	other.Git("rev-list", "--objects", second)
	if err := m.Pack(ctx, &pack, []string{second}, []string{first, third}); err != nil {
		t.Fatal(err)
	}
	if pack.Len() > 200_000 {
		t.Errorf("%d bytes for one commit", pack.Len())
	}
}

// TestTidyDrops lets somebody push over large commits again and again.
func TestTidyDrops(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Write("a", "kept")
	kept := r.Commit(nil, "kept")
	dir := filepath.Join(t.TempDir(), "git")
	m, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, m, r.Dir)
	largest := int64(0)
	for i := range 6 {
		r.Git("reset", "-q", "--hard", kept)
		r.Write("noise", noise(i, 12_000_000))
		r.Commit(nil, "pushed over later")
		fetch(t, m, r.Dir)
		if err := m.Tidy(context.Background(), kept); err != nil {
			t.Fatal(err)
		}
		largest = max(largest, size(t, dir))
	}
	if largest > 50<<20 {
		t.Errorf("the mirror grew to %d MiB", largest>>20)
	}
	whole(t, r, m, kept)
	whole(t, r, m, r.Head())
	r.Git("--git-dir="+dir, "fsck", "--full")
}

// FuzzIngest looks for packs that panic, or that leave something behind.
func FuzzIngest(f *testing.F) {
	r := gittest.NewRepo(f)
	r.Write("a", strings.Repeat("one\n", 100))
	first := r.Commit(nil, "first")
	r.Write("a", strings.Repeat("one\n", 100)+"two")
	second := r.Commit(nil, "second")
	f.Add(packObjects(f, r, second))
	f.Add(packObjects(f, r, second, "--delta-base-offset"))
	f.Add(packObjects(f, r, second+"\n^"+first, "--thin"))
	m, err := mirror.Open(filepath.Join(f.TempDir(), "git"), mirror.Limits{Object: 1 << 16, Objects: 1 << 20, Fetch: 1 << 16})
	if err != nil {
		f.Fatal(err)
	}
	tip := strings.Repeat("1", 40)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := m.Ingest(context.Background(), bytes.NewReader(data), tip); err == nil {
			t.Error("an object was invented")
		}
	})
}
