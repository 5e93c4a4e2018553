package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Shared is one node for all tests of a package. It starts with the first test
// that asks for it and is taken down after the last.
type Shared struct {
	once sync.Once
	node *Node
	repo *Repo
	up   *UpResult
	// holder outlives the test that came first.
	holder *holder
}

// Main runs the tests of a package; it is called by TestMain.
func (s *Shared) Main(m *testing.M) int {
	code := m.Run()
	if s.holder != nil {
		code = max(code, s.holder.end())
	}
	return code
}

// Node returns the node, serving [Site] from a signed repository.
func (s *Shared) Node(t testing.TB) (*Node, *UpResult) {
	t.Helper()
	paths := Require(t)
	s.once.Do(func() {
		s.holder = &holder{TB: t, ctx: context.Background()}
		s.holder.run(func() {
			s.repo = NewRepo(s.holder, false, nil)
			n := &Node{Paths: paths, Name: "t" + randomName(), Args: s.repo.UpArgs()}
			n.State = filepath.Join(RunDir(s.holder, paths, n.Name), "state")
			s.holder.Cleanup(func() {
				if s.holder.Failed() {
					n.Dump(s.holder)
				}
				n.End(s.holder)
			})
			start := time.Now()
			s.up = n.Up(s.holder)
			s.node = n
			s.holder.Logf("shared node %s serves after %.1f s", n.Name, time.Since(start).Seconds())
		})
	})
	if s.node == nil {
		t.Fatal("the package's node did not start; see the first test that needed it")
	}
	return s.node, s.up
}

// Kubectl returns a client for the shared node in a namespace of the test's
// own.
func (s *Shared) Kubectl(t testing.TB) *Kubectl {
	t.Helper()
	n, _ := s.Node(t)
	return n.Kubectl(t).TestNamespace(t)
}

// holder is a test that lasts as long as the package: what is made with it is
// cleaned up at the end, not with the test that came first.
type holder struct {
	testing.TB
	ctx      context.Context
	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

// stopped ends run when the holder fails.
type stopped struct{}

func (h *holder) run(f func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(stopped); !ok {
				panic(r)
			}
		}
	}()
	f()
}

// Helper, Context and the others shadow those of the test that came first,
// which has ended by the time of the last clean-up.
func (h *holder) Helper()                  {}
func (h *holder) Context() context.Context { return h.ctx }

func (h *holder) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *holder) Failed() bool { return h.failed }

func (h *holder) Log(args ...any) { fmt.Fprintln(os.Stdout, args...) }

func (h *holder) Logf(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

func (h *holder) Errorf(format string, args ...any) {
	h.failed = true
	h.Logf(format, args...)
}

func (h *holder) Error(args ...any) {
	h.failed = true
	h.Log(args...)
}

func (h *holder) Fatal(args ...any) {
	h.Error(args...)
	panic(stopped{})
}

func (h *holder) Fatalf(format string, args ...any) {
	h.Errorf(format, args...)
	panic(stopped{})
}

func (h *holder) TempDir() string {
	dir, err := os.MkdirTemp("", "bothy-test-")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			h.Error(err)
		}
	})
	return dir
}

// end runs the clean-ups and returns an exit status.
func (h *holder) end() int {
	for i := len(h.cleanups) - 1; i >= 0; i-- {
		h.run(h.cleanups[i])
	}
	if h.failed {
		return 1
	}
	return 0
}
