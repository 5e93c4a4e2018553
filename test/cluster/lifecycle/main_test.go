// Package lifecycle shows how nodes come and go: what `bothy up` promises, what
// `bothy down` leaves behind, what survives a restart, and how each broken
// input is refused without changing anything. Its tests make nodes of their own
// and run one after the other, because they look at the whole machine.
package lifecycle

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/test/cluster"
)

const patience = time.Minute

var errNotYet = errors.New("not yet")

// snapshot is the machine before the test.
func snapshot(t *testing.T) cluster.Snapshot {
	t.Helper()
	cluster.Require(t)
	s, err := cluster.TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// buffer collects output that is read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func programs(t *testing.T, n *cluster.Node) []ebpf.ProgramID {
	t.Helper()
	out, err := n.Programs()
	if err != nil {
		t.Fatal(err)
	}
	return out
}
