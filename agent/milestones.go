package agent

import (
	"maps"
	"sync"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/os/boot"
)

const milestonesFile = boot.RunDir + "/milestones.json"

// milestones are the times, in seconds since the start of the node, at which
// the node first got somewhere. They are kept where they outlive the agent but
// not the node.
type milestones struct {
	started time.Time

	mu      sync.Mutex
	reached map[string]float64
	changed chan struct{}
}

func loadMilestones(env *boot.Environment) *milestones {
	m := &milestones{started: time.Unix(0, env.StartedAt), reached: map[string]float64{}, changed: make(chan struct{})}
	_ = durable.ReadJSON(milestonesFile, &m.reached) // missing at the first start of the agent
	return m
}

// workloadsReady is the last that a machine reaches; see Status.Milestones.
const workloadsReady = "workloadsReady"

// note records what st shows for the first time.
func (m *milestones) note(st Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news := false
	reach := func(name string, at time.Time) {
		if _, known := m.reached[name]; !known {
			m.reached[name] = at.Sub(m.started).Seconds()
			news = true
		}
	}
	for _, c := range st.Components {
		if c.Name == "kube-apiserver" && c.State == supervise.Ready {
			reach("apiReady", c.Since)
		}
	}
	now := time.Now()
	if st.Node.Ready {
		reach("nodeReady", now)
	}
	if st.Git.Applied != nil {
		reach("commitApplied", now)
	}
	if st.Serving() {
		reach(workloadsReady, now)
	}
	if news {
		_ = durable.WriteJSON(milestonesFile, m.reached, 0o600) // only figures; the next agent would note them later
		close(m.changed)
		m.changed = make(chan struct{})
	}
}

func (m *milestones) get() map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.reached)
}

func (m *milestones) changedChan() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}
