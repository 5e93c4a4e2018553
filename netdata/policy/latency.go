package policy

import "time"

// latency measures how long a change of a NetworkPolicy takes until it is in the tables. Whoever
// uses it holds the Controller's lock.
type latency struct {
	pending map[string]time.Time // when first heard of what is not in force yet, by policy
	observe func(time.Duration)
}

// ObserveLatency has f called for each change of a NetworkPolicy that was brought into the tables, with the time
// since it was heard of. What is read when the agent starts is no change. Call it before Run; f must not
// call the Controller.
func (c *Controller) ObserveLatency(f func(time.Duration)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latency = latency{pending: map[string]time.Time{}, observe: f}
}

// begin notes when a policy was heard of. A later change before it is in force does not count anew: what
// the first one asked for is not in force yet either.
func (l *latency) begin(policy string) {
	if l.observe == nil {
		return
	}
	if _, known := l.pending[policy]; !known {
		l.pending[policy] = time.Now()
	}
}

// end is called when all that was heard of is in force.
func (l *latency) end() {
	for _, since := range l.pending {
		l.observe(time.Since(since))
	}
	clear(l.pending)
}
