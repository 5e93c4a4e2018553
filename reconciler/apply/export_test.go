package apply

import "time"

// SetLinger changes how long a watch goes on that nobody needs.
func (h *Hub) SetLinger(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.linger = d
}

// AgeMemo makes what is remembered look older.
func (e *Engine) AgeMemo(by time.Duration) {
	m := e.o.Hub.memo
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, at := range m.recent {
		m.recent[key] = at.Add(-by)
	}
}
