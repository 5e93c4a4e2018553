package conntrack

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Table is the part of maps.Tables that holds flows.
type Table interface {
	Flows(visit func(maps.Flow)) error
	Flow(key maps.Tuple) (maps.Flow, bool, error)
	Translations(visit func(maps.Translation)) error
	Translation(from maps.Tuple) (maps.Tuple, bool, error)
	DeleteFlow(key maps.Tuple) error
	DeleteTranslation(from maps.Tuple) error
	CutAffinity(service uint32, gone func(netip.AddrPort) bool) error
}

// The time between sweeps lies between these; it follows how much of the
// table a sweep removed.
const (
	sweepMin   = 10 * time.Second
	sweepMax   = 2 * time.Minute
	sweepStart = 30 * time.Second
	// forgetDelay gathers pods that end together into one sweep.
	forgetDelay = time.Second
)

// Collector sweeps the flow tables.
type Collector struct {
	table Table
	log   *slog.Logger
	wake  chan struct{}
	cut   chan struct{}
	judge chan struct{}
	// networks are the paths of the network namespaces of this node's pods, by their addresses.
	networks func() (map[netip.Addr]string, error)
	// destroySockets and abortSockets are fields for tests: they reach into the kernel.
	destroySockets func(map[netip.AddrPort]bool) error
	abortSockets   func(network string, sockets map[maps.Tuple]bool) (aborted int, err error)

	mu     sync.Mutex
	gone   map[netip.Addr]bool
	cuts   []cut
	denied func(maps.Tuple) bool // nil if nothing was revoked
	status Status
}

// Status is what the last sweep found.
type Status struct {
	Flows     int `json:"flows"`
	Removed   int `json:"removedLastSweep"`
	Forgotten int `json:"forgottenAddresses"`
	// Aborted are sockets of pods whose connections policy has ended, since the agent started.
	Aborted int `json:"abortedSockets,omitempty"`
	// States counts the flows that stayed.
	States map[maps.FlowState]int `json:"states,omitempty"`
}

// New only stores its arguments. Networks are the paths of the network namespaces of this node's pods, by the pods'
// addresses.
func New(table Table, networks func() (map[netip.Addr]string, error), log *slog.Logger) *Collector {
	return &Collector{
		table: table, log: log, networks: networks, gone: map[netip.Addr]bool{},
		wake: make(chan struct{}, 1), cut: make(chan struct{}, 1), judge: make(chan struct{}, 1),
		destroySockets: destroyDatagramSockets, abortSockets: abortSockets,
	}
}

// Forget has the next sweep, which comes soon, remove all flows of a pod that
// is gone.
func (c *Collector) Forget(addr netip.Addr) {
	c.mu.Lock()
	c.gone[addr] = true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Status returns what the last sweep found.
func (c *Collector) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Run sweeps, cuts and ends what was revoked until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	var cutting sync.WaitGroup
	cutting.Go(func() { c.runCuts(ctx) })
	cutting.Go(func() { c.runRevocations(ctx) })
	defer cutting.Wait()
	interval := sweepStart
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.wake:
			if !sleep(ctx, forgetDelay) {
				return nil
			}
		}
		// A sweep that fails costs memory, nothing else; the next one does its work.
		flows, removed, err := c.sweepNow()
		if err != nil {
			c.log.Warn("conntrack: sweep failed, will try again", "err", err)
		}
		interval = nextInterval(interval, flows, removed)
		timer.Reset(interval)
	}
}

func (c *Collector) sweepNow() (flows, removed int, err error) {
	now, err := maps.Now()
	if err != nil {
		return 0, 0, err
	}
	return c.Sweep(now)
}

func nextInterval(last time.Duration, flows, removed int) time.Duration {
	switch {
	case removed*4 > flows:
		return max(last/2, sweepMin)
	case removed*20 < flows || flows == 0:
		return min(last*3/2, sweepMax)
	default:
		return last
	}
}

// Sweep removes flows that are over at the given tick, and those of forgotten
// addresses. It returns how many rows it saw and how many it removed.
func (c *Collector) Sweep(now uint32) (flows, removed int, err error) {
	c.mu.Lock()
	gone := c.gone
	c.gone = map[netip.Addr]bool{}
	c.mu.Unlock()

	var over []maps.Tuple
	states := map[maps.FlowState]int{}
	err = c.table.Flows(func(f maps.Flow) {
		flows++
		if gone[f.Tuple.Src.Addr()] || gone[f.Tuple.Dst.Addr()] || expired(f, now) {
			over = append(over, f.Tuple)
			return
		}
		states[f.Flags.State()]++
	})
	for _, t := range over {
		if !gone[t.Src.Addr()] && !gone[t.Dst.Addr()] && c.beganAnew(t, now) {
			continue
		}
		err = errors.Join(err, c.remove(t))
	}
	if len(gone) > 0 {
		err = errors.Join(err, c.removeTranslations(func(t maps.Translation) bool {
			return gone[t.From.Src.Addr()] || gone[t.From.Dst.Addr()] || gone[t.To.Src.Addr()] || gone[t.To.Dst.Addr()]
		}))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		for a := range gone {
			c.gone[a] = true
		}
		return flows, len(over), err
	}
	c.status.Flows = flows - len(over)
	c.status.Removed = len(over)
	c.status.States = states // never written again
	c.status.Forgotten += len(gone)
	return flows, len(over), nil
}

// beganAnew looks again, because the walk takes its time: a client that opens and closes quickly may have
// begun another connection in the row of one that was over.
func (c *Collector) beganAnew(key maps.Tuple, now uint32) bool {
	f, found, err := c.table.Flow(key)
	return err == nil && found && !expired(f, now)
}

func expired(f maps.Flow, now uint32) bool {
	// A row may have been touched after the tick was read.
	age := int32(now - f.Seen)
	return age > 0 && uint32(age) > maps.Ticks(timeout(f.Tuple.Proto, f.Flags))
}

// remove deletes a flow with its translations. Conntrack knows the flow by its real
// ends; a translation has a row under them in one direction, whose mirror is the
// other. The mirror may belong to a later flow by now, which was given another
// backend: then it stays.
func (c *Collector) remove(key maps.Tuple) error {
	err := c.table.DeleteFlow(key)
	for _, t := range []maps.Tuple{key, key.Reverse()} {
		to, found, lookupErr := c.table.Translation(t)
		err = errors.Join(err, lookupErr)
		if !found {
			continue
		}
		err = errors.Join(err, c.table.DeleteTranslation(t))
		back, found, lookupErr := c.table.Translation(to.Reverse())
		err = errors.Join(err, lookupErr)
		if found && back == t.Reverse() {
			err = errors.Join(err, c.table.DeleteTranslation(to.Reverse()))
		}
	}
	return err
}

func (c *Collector) removeTranslations(match func(maps.Translation) bool) error {
	var stale []maps.Tuple
	err := c.table.Translations(func(t maps.Translation) {
		if match(t) {
			stale = append(stale, t.From)
		}
	})
	for _, t := range stale {
		err = errors.Join(err, c.table.DeleteTranslation(t))
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
