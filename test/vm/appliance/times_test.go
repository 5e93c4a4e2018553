package appliance

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// times are the moments of a boot, in seconds since the machine was switched on.
type times struct {
	started time.Time
	mu      sync.Mutex
	seen    []moment
}

type moment struct {
	what  string
	after time.Duration
}

// watch notes when the console shows the end of each part of the boot.
func (m *machine) watch(t *testing.T) *times {
	t.Helper()
	all := &times{started: m.started}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for _, part := range []struct{ what, pattern string }{
		{"firmware starts the boot file", `EFI stub: `},
		{"first stage is over, process 1 shows a picture", `state +starting`},
		{"network is up, the agent starts", `state +starting the agent`},
		{"agent answers", `state +(fetching|verifying|waiting-for|applying|ready)`},
		{"commit is accepted", `commit +[0-9a-f]{12}`},
	} {
		watching.Go(func() {
			if _, err := m.Console.Wait(ctx, regexp.MustCompile(part.pattern)); err == nil {
				all.mark(part.what)
			}
		})
	}
	t.Cleanup(func() { cancel(); watching.Wait() })
	return all
}

func (all *times) mark(what string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.seen = append(all.seen, moment{what, time.Since(all.started)})
}

// String is a table.
func (all *times) String() string {
	all.mu.Lock()
	defer all.mu.Unlock()
	var b strings.Builder
	before := time.Duration(0)
	for _, m := range all.seen {
		fmt.Fprintf(&b, "  %6.1f s  (+%5.1f s)  %s\n", m.after.Seconds(), (m.after - before).Seconds(), m.what)
		before = m.after
	}
	return b.String()
}
