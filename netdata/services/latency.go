package services

import (
	"sync"
	"time"
)

// latency measures how long a change of the API takes until it is in the tables.
type latency struct {
	mu      sync.Mutex
	pending map[string]time.Time
	observe func(time.Duration)
}

// ObserveLatency has f called for each Service that was brought into the tables, with the time since the first
// change that was not in them yet was heard of. Call it before Run.
func (c *Controller) ObserveLatency(f func(time.Duration)) {
	c.latency.mu.Lock()
	defer c.latency.mu.Unlock()
	c.latency.observe = f
}

func (l *latency) begin(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.observe == nil {
		return
	}
	if l.pending == nil {
		l.pending = map[string]time.Time{}
	}
	if _, ok := l.pending[key]; !ok {
		l.pending[key] = time.Now()
	}
}

func (l *latency) end(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if since, ok := l.pending[key]; ok {
		delete(l.pending, key)
		l.observe(time.Since(since))
	}
}
