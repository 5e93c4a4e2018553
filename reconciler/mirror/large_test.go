package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

const (
	manyCommits = 10_000
	manyFiles   = 2_000
)

// largeRepo makes a repository with a long history, packed as a server has it.
func largeRepo(t testing.TB) *gittest.Repo {
	t.Helper()
	r := gittest.NewRepo(t)
	var b bytes.Buffer
	file := func(i int) string { return fmt.Sprintf("apps/team-%02d/object-%04d.yaml", i/50, i) }
	text := func(i, version int) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: object-%d\n  namespace: team-%d\ndata:\n  version: %q\n  text: %q\n", i, i/50, strconv.Itoa(version), strings.Repeat(strconv.Itoa(i), 100))
	}
	for c := range manyCommits {
		fmt.Fprintf(&b, "commit refs/heads/main\ncommitter T <t@example.com> %d +0000\ndata 6\nchange\n", 1_700_000_000+c)
		if c == 0 {
			for i := range manyFiles {
				s := text(i, 0)
				fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", file(i), len(s), s)
			}
			continue
		}
		s := text(c%manyFiles, c)
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", file(c%manyFiles), len(s), s)
	}
	cmd := exec.Command("git", "-C", r.Dir, "fast-import", "--quiet")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.Git("reset", "-q", "--hard")
	r.Git("gc", "-q")
	return r
}

// TestLargeRepository fetches a long history in a process of its own, and then
// single commits, and looks at what that takes.
func TestLargeRepository(t *testing.T) {
	if url := os.Getenv("BOTHY_FETCH_URL"); url != "" {
		fetchAndMeasure(t, url, os.Getenv("BOTHY_FETCH_DIR"))
		return
	}
	if testing.Short() {
		t.Skip("a long history")
	}
	r := largeRepo(t)
	for name, at := range map[string]string{"file": r.Dir, "http": serve(t, r, nil)} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "git")
			cmd := exec.Command(os.Args[0], "-test.run=^TestLargeRepository$", "-test.v")
			cmd.Env = append(os.Environ(), "BOTHY_FETCH_URL="+at, "BOTHY_FETCH_DIR="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
			m, err := mirror.Open(dir, mirror.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			smallFetches(t, r, m, dir, at)
		})
	}
}

func fetchAndMeasure(t *testing.T, url, dir string) {
	before := residentPeak(t)
	m, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	fetch(t, m, url)
	grown := residentPeak(t) - before
	t.Logf("fetched in %s, peak memory +%d MiB, %d KiB on disk", time.Since(began).Round(time.Millisecond), grown>>20, size(t, dir)>>10)
	if grown > 150<<20 {
		t.Errorf("the process grew by %d MiB", grown>>20)
	}
}

// smallFetches fetches what changed one commit at a time.
func smallFetches(t *testing.T, r *gittest.Repo, m *mirror.Mirror, dir, url string) {
	const n = 20
	before := size(t, dir)
	var took, nothing time.Duration
	for i := range n {
		r.Write("apps/team-07/object-0350.yaml", fmt.Sprintf("version: %d %s\n", i, url))
		want := r.Commit(nil, "small")
		began := time.Now()
		tip, err := m.Fetch(context.Background(), mirror.Remote{URL: url, Branch: "main"})
		took += time.Since(began)
		if err != nil || tip != want {
			t.Fatalf("%s, %v", tip, err)
		}
		began = time.Now()
		fetch(t, m, url)
		nothing += time.Since(began)
	}
	written := size(t, dir) - before
	t.Logf("one commit: %s, nothing new: %s, %d bytes written each", took/n, nothing/n, written/n)
	if written/n > 16<<10 {
		t.Errorf("a commit of one file costs %d bytes", written/n)
	}
}

func size(t *testing.T, dir string) int64 {
	t.Helper()
	var total int64
	err := filepath.Walk(dir, func(_ string, st os.FileInfo, err error) error {
		if err == nil {
			total += st.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// residentPeak is the most memory that the process has held, in bytes.
func residentPeak(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc")
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
