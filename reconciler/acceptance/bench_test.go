package acceptance_test

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// BenchmarkHistory verifies 10 000 signed commits that change one of 2 000
// files each, read from a mirror. It reports the time per history, per commit,
// and the highest heap above what was in use before.
func BenchmarkHistory(b *testing.B) {
	const commits = 10_000
	alice := gittest.NewSigner(b, "alice")
	repo := gittest.History(b, alice, 20, 100, commits)
	m, err := mirror.Open(filepath.Join(b.TempDir(), "git"), mirror.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	tip, err := m.Fetch(context.Background(), mirror.Remote{URL: repo.Dir, Branch: "main"})
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("fetched in %s", time.Since(started))
	first := ""
	if err := acceptance.FirstParents(context.Background(), m, tip, firstOf(&first)); err != nil {
		b.Fatal(err)
	}
	root, _, err := acceptance.RootAt(m, tip)
	if err != nil {
		b.Fatal(err)
	}
	for _, explain := range []bool{false, true} {
		name := "verify"
		if explain {
			name = "verify and explain"
		}
		b.Run(name, func(b *testing.B) {
			heap := watchHeap()
			for b.Loop() {
				v := acceptance.NewVerifier(m, time.Now)
				steps := 0
				if explain {
					v.OnStep(func(acceptance.Step) { steps++ })
				}
				got, err := v.Verify(context.Background(), tip, &acceptance.Point{Commit: first}, v1alpha1.BootTrust{Root: root})
				if err != nil {
					b.Fatal(err)
				}
				if got.Commits != commits || explain && steps != commits {
					b.Fatalf("%d commits, %d steps", got.Commits, steps)
				}
			}
			b.ReportMetric(float64(heap())/(1<<20), "MiB-peak")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/commits, "µs/commit")
		})
	}
}

// watchHeap returns a function that stops watching and returns the highest heap
// in use since, above what was in use at the beginning.
func watchHeap() func() uint64 {
	runtime.GC()
	var begin runtime.MemStats
	runtime.ReadMemStats(&begin)
	stop, highest := make(chan struct{}), make(chan uint64)
	go func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		var top uint64
		for {
			select {
			case <-ticker.C:
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				top = max(top, now.HeapAlloc)
			case <-stop:
				highest <- top - min(top, begin.HeapAlloc)
				return
			}
		}
	}()
	return func() uint64 { close(stop); return <-highest }
}
