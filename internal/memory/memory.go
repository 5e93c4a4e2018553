// Package memory trades memory for CPU as the load asks for it.
//
// The heap of a process that has come to rest is mostly caches that live for
// ever: little garbage arises, and a garbage collector that lets the heap grow
// by few percent costs next to nothing. Under load the same setting costs a
// quarter of the CPU, at the very moment when CPU is what everybody waits for.
// So the heap may grow while cycles follow each other closely, and what it grew
// by is given back to the system once they do not.
package memory

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quietPercent was measured on an idle control plane: at 50 it took 7 MiB
	// more, with no difference in CPU that could be told from noise.
	quietPercent = 40
	busyPercent  = 200
	// Under load the heap may outgrow what is alive by this part of the machine's
	// memory, and never by more than growthMax bytes.
	growthPart = 32
	growthMax  = 512 << 20
	// burst is how close two cycles are when there is load.
	burst = 2 * time.Second
	// settle is how long a busy process has no cycle until it counts as quiet.
	settle = 15 * time.Second
)

// Pace sets the garbage collector of this process until ctx ends. Nothing wakes
// it up but the collector itself.
//
// The start of a process is not counted as load: what is made then stays, and
// would lie scattered among the garbage that a large heap lets pile up. No
// collector that leaves objects where they are can give such memory back.
func Pace(ctx context.Context) {
	p := pacer{growth: growth(total()), live: live}
	debug.SetGCPercent(quietPercent)
	cycles := make(chan struct{}, 1)
	go afterCycle(ctx, cycles)
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for {
		select {
		case <-cycles:
			percent, wait := p.cycle(time.Now())
			if percent > 0 {
				debug.SetGCPercent(percent)
			}
			if wait {
				timer.Reset(settle)
			}
		case <-timer.C:
			debug.SetGCPercent(p.rest())
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}

// pacer decides; what it decides is carried out by Pace.
type pacer struct {
	growth uint64        // bytes
	live   func() uint64 // bytes alive after the last cycle
	// started is set once the start is over.
	started, busy bool
	// before is when the last cycle was; zero ignores the next one's distance.
	before  time.Time
	percent int
}

// cycle takes note of a cycle. A percent above 0 is the new setting; wait says
// that the time until the process counts as quiet begins anew.
func (p *pacer) cycle(now time.Time) (percent int, wait bool) {
	gap := now.Sub(p.before)
	first := p.before.IsZero()
	p.before = now
	switch {
	case !p.started, first && !p.busy, !p.busy && gap > burst:
		return 0, false
	case !p.busy:
		p.busy = true
	}
	was := p.percent
	p.percent = p.allowed()
	// Each change stops the process for a moment: small ones are not worth it.
	if d := p.percent - was; d > -10 && d < 10 {
		p.percent = was
		return 0, true
	}
	return p.percent, true
}

// allowed is the percentage that keeps the growth within its limit.
func (p *pacer) allowed() int {
	return int(min(busyPercent, max(quietPercent, p.growth*100/max(1, p.live()))))
}

// rest says that the process is quiet. The cycle that giving memory back makes
// says nothing about load.
func (p *pacer) rest() int {
	p.started, p.busy, p.before, p.percent = true, false, time.Time{}, quietPercent
	return p.percent
}

// afterCycle sends after each cycle of the collector, which is when an object
// that nobody holds is cleaned up, until ctx ends.
func afterCycle(ctx context.Context, cycles chan<- struct{}) {
	collected := make(chan struct{}, 1)
	for ctx.Err() == nil {
		// 16 bytes, so that no other object shares its place and keeps it alive.
		runtime.AddCleanup(new([16]byte), func(struct{}) { collected <- struct{}{} }, struct{}{})
		select {
		case <-collected:
		case <-ctx.Done():
			return
		}
		select {
		case cycles <- struct{}{}:
		default:
		}
	}
}

func live() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// total is the machine's memory in bytes, 0 if it is not known.
func total() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return info.Totalram * uint64(info.Unit)
}

func growth(total uint64) uint64 { return min(growthMax, total/growthPart) }
