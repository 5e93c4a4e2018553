package memory

import (
	"runtime"
	"testing"
	"time"
)

const mib = 1 << 20

func newPacer(total, live uint64) *pacer {
	return &pacer{growth: growth(total), live: func() uint64 { return live }}
}

func TestStartIsNoLoad(t *testing.T) {
	p := newPacer(24<<30, 100*mib)
	now := time.Now()
	for range 5 {
		now = now.Add(100 * time.Millisecond)
		if percent, wait := p.cycle(now); percent != 0 || wait {
			t.Errorf("a cycle while the process starts: %d, %v", percent, wait)
		}
	}
}

func TestLoadComesAndGoes(t *testing.T) {
	p := newPacer(24<<30, 100*mib)
	now := time.Now()
	if got := p.rest(); got != quietPercent {
		t.Errorf("at rest %d percent", got)
	}
	step := func(after time.Duration) (int, bool) {
		now = now.Add(after)
		return p.cycle(now)
	}
	if percent, wait := step(time.Second); percent != 0 || wait {
		t.Errorf("the cycle that giving memory back makes counts as load: %d, %v", percent, wait)
	}
	for range 3 {
		if percent, wait := step(30 * time.Second); percent != 0 || wait {
			t.Errorf("cycles half a minute apart count as load: %d, %v", percent, wait)
		}
	}
	if percent, wait := step(time.Second); percent != busyPercent || !wait {
		t.Errorf("two cycles in a second: %d, %v", percent, wait)
	}
	if percent, wait := step(10 * time.Second); percent != 0 || !wait {
		t.Errorf("load that goes on: %d, %v", percent, wait)
	}
}

func TestGrowthIsBounded(t *testing.T) {
	for _, c := range []struct {
		name        string
		total, live uint64
		want        int
	}{
		{"a large machine", 24 << 30, 100 * mib, busyPercent},
		{"a large heap", 24 << 30, 512 * mib, 100},
		{"a small machine", 4 << 30, 128 * mib, 100},
		{"a machine that is nearly full", 1 << 30, 640 * mib, quietPercent},
		{"an unknown machine", 0, 100 * mib, quietPercent},
	} {
		p := newPacer(c.total, c.live)
		now := time.Now()
		p.rest()
		p.cycle(now)
		p.cycle(now.Add(time.Second))
		if p.percent != c.want {
			t.Errorf("%s: %d percent, want %d", c.name, p.percent, c.want)
		}
	}
}

func TestCyclesAreNoticed(t *testing.T) {
	cycles := make(chan struct{}, 1)
	go afterCycle(t.Context(), cycles)
	for range 3 {
		deadline := time.After(10 * time.Second)
		for seen := false; !seen; {
			runtime.GC()
			select {
			case <-cycles:
				seen = true
			case <-time.After(10 * time.Millisecond): // it was collected before it was made
			case <-deadline:
				t.Fatal("a cycle was not noticed")
			}
		}
	}
}

func TestMachine(t *testing.T) {
	if total() == 0 || live() == 0 {
		t.Errorf("memory of the machine %d, alive %d", total(), live())
	}
}
