package volumes

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeQuota remembers limits.
type fakeQuota struct {
	mu       sync.Mutex
	broken   error
	projects map[string]uint32
	limits   map[uint32]int64
}

func newFakeQuota() *fakeQuota {
	return &fakeQuota{projects: map[string]uint32{}, limits: map[uint32]int64{}}
}

func (q *fakeQuota) check() error { return q.broken }

func (q *fakeQuota) project(dir string) (uint32, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	name := filepath.Base(dir)
	if q.projects[name] == 0 {
		q.projects[name] = firstProject + uint32(len(q.projects))
	}
	return q.projects[name], nil
}

func (q *fakeQuota) existing(dir string) (uint32, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	id, ok := q.projects[filepath.Base(dir)]
	return id, ok
}

func (q *fakeQuota) set(project uint32, bytes int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits[project] = bytes
	return nil
}

func (q *fakeQuota) limitOf(name string) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits[q.projects[name]]
}

func testLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func testStore(t *testing.T) (*store, *fakeQuota) {
	t.Helper()
	q := newFakeQuota()
	s := newStore(filepath.Join(t.TempDir(), "volumes"), testLog())
	s.quota = q
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	return s, q
}

func mustCreate(t *testing.T, s *store, name string, bytes int64) string {
	t.Helper()
	promise, err := s.create(name, bytes)
	if err != nil {
		t.Fatal(err)
	}
	return promise
}

func TestAnyUserOfAPodMayWriteAndNobodyElseGetsThere(t *testing.T) {
	s, _ := testStore(t)
	mustCreate(t, s, "pvc-1_ns_claim", 1<<20)
	for dir, want := range map[string]fs.FileMode{s.path("pvc-1_ns_claim"): 0o777, s.dir: 0o700} {
		st, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", dir, st.Mode().Perm(), want)
		}
	}
}

func TestCreateAgainKeepsDataAndOwner(t *testing.T) {
	s, q := testStore(t)
	mustCreate(t, s, "pvc-1_ns_claim", 1<<20)
	file := filepath.Join(s.path("pvc-1_ns_claim"), "data")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path("pvc-1_ns_claim"), 0o750); err != nil { // the pod's own wish
		t.Fatal(err)
	}
	mustCreate(t, s, "pvc-1_ns_claim", 2<<20)
	if data, err := os.ReadFile(file); err != nil || string(data) != "precious" {
		t.Errorf("data after second create: %q, %v", data, err)
	}
	if st, err := os.Stat(s.path("pvc-1_ns_claim")); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("mode after second create: %v, %v", st.Mode(), err)
	}
	if got := q.limitOf("pvc-1_ns_claim"); got != 2<<20 {
		t.Errorf("limit %d, want %d", got, 2<<20)
	}
}

func TestCapacityIsPromisedOnlyWithQuota(t *testing.T) {
	s, q := testStore(t)
	if promise := mustCreate(t, s, "pvc-1_ns_a", 1<<20); !strings.HasPrefix(promise, "enforced by project quota") {
		t.Errorf("promise %q", promise)
	}
	q.broken = errors.New("no quota here")
	if promise := mustCreate(t, s, "pvc-2_ns_b", 1<<20); promise != "not enforced: no quota here" {
		t.Errorf("promise %q", promise)
	}
}

func TestDiscardedVolumeIsGoneAtOnceAndLaterFromDisk(t *testing.T) {
	s, q := testStore(t)
	mustCreate(t, s, "pvc-1_ns_claim", 1<<20)
	if err := os.WriteFile(filepath.Join(s.path("pvc-1_ns_claim"), "data"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.discard("pvc-1_ns_claim"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.path("pvc-1_ns_claim")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory after discard: %v", err)
	}
	if err := s.discard("pvc-1_ns_claim"); err != nil {
		t.Errorf("discarding again, as after a crash: %v", err)
	}
	// A process that dies here leaves the trash to the next one.
	next := newStore(s.dir, testLog())
	next.quota = q
	if err := next.open(); err != nil {
		t.Fatal(err)
	}
	go next.sweep(t.Context())
	trash := filepath.Join(s.dir, trashDir)
	waitFor(t, "the trash to be empty", func() bool { return isEmpty(trash) })
	waitFor(t, "the limit to be lifted", func() bool { return q.limitOf("pvc-1_ns_claim") == 0 })
}

func TestDiscardNeverLeavesItsDirectory(t *testing.T) {
	s, _ := testStore(t)
	outside := filepath.Join(filepath.Dir(s.dir), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../outside", "a/b", trashDir} {
		if err := s.discard(name); err == nil {
			t.Errorf("discard(%q) did something", name)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

func TestOrphansWithDataAreKept(t *testing.T) {
	s, _ := testStore(t)
	for _, name := range []string{"pvc-known_ns_a", "pvc-empty_ns_b", "pvc-full_ns_c"} {
		mustCreate(t, s, name, 1<<20)
	}
	if err := os.WriteFile(filepath.Join(s.path("pvc-full_ns_c"), "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.removeOrphans(func(dir string) bool { return dir == "pvc-known_ns_a" }); err != nil {
		t.Fatal(err)
	}
	names, err := s.names()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"pvc-full_ns_c", "pvc-known_ns_a"}; !slices.Equal(names, want) {
		t.Errorf("left are %v, want %v", names, want)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}
