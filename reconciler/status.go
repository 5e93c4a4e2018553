package reconciler

import (
	"slices"
	"sync"
	"time"

	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/endpoint"
)

// Phase is where the site is on the way from Git to running workloads.
type Phase string

// The phases. Fetching and verifying are shown only until the first commit is
// accepted: later ones are fetched beside the running site.
const (
	PhaseFetching  Phase = "fetching"
	PhaseVerifying Phase = "verifying"
	PhaseWaitAPI   Phase = "waiting-for-api"
	PhaseApplying  Phase = "applying"
	PhaseWaitReady Phase = "waiting-for-health"
	PhaseReady     Phase = "ready"
	PhaseDegraded  Phase = "degraded"
	// PhaseFollowing is that of a machine that leaves the applying to another.
	PhaseFollowing Phase = "following"
)

// Status is what an operator wants to know. It can be encoded as JSON.
type Status struct {
	Source Source `json:"source"`
	// Fetched is the newest commit seen on the branch.
	Fetched string `json:"fetched,omitempty"`
	// Accepted is the commit the site runs; nil before the first.
	Accepted *AcceptedStatus `json:"accepted,omitempty"`
	// Rejected is the newest commit if it was refused, else nil.
	Rejected *acceptance.Refusal `json:"rejected,omitempty"`
	// Applied is the last commit whose objects were all sent.
	Applied *AppliedStatus `json:"applied,omitempty"`
	Phase   Phase          `json:"phase"`
	// Message explains the phase where it needs explaining, Reason is the same
	// in one word of the Flux API.
	Message string `json:"message,omitempty"`
	Reason  reason `json:"reason,omitempty"`
	// Suspended says that somebody suspended applying in the cluster.
	Suspended bool `json:"suspended,omitempty"`
	// FluxComponents counts the objects of Flux's own components in the site's
	// directory, which are left out: bothy serves the Flux API itself.
	FluxComponents int `json:"fluxComponents,omitempty"`
	// Inventory lists what was applied from the site's directory.
	Inventory []apply.ID    `json:"-"`
	Objects   ObjectsStatus `json:"objects"`
	// Endpoint is where the site can be pushed to; nil if nowhere.
	Endpoint *endpoint.Status `json:"endpoint,omitempty"`
	// LastPruned lists what the last prune deleted.
	LastPruned *PrunedStatus `json:"lastPruned,omitempty"`
	// Machine is what commits ask of the machine itself and did not get.
	Machine []MachineProblem `json:"machine,omitempty"`
	Events  []Event          `json:"events,omitempty"`

	// machine is Machine by the part of the machine.
	machine map[string]MachineProblem
}

// Source is the state of the repository.
type Source struct {
	URL    string `json:"url"`
	Branch string `json:"branch"`
	Path   string `json:"path"`
	// Suspended says that somebody suspended fetching in the cluster.
	Suspended bool `json:"suspended,omitempty"`
	// TrustNone says that commits are not verified.
	TrustNone bool `json:"trustNone,omitempty"`
	// Sources are the places with the repository in order of preference.
	Sources []SourceStatus `json:"sources,omitempty"`
	// LastFetch is when the branch was last read from any of them.
	LastFetch *time.Time `json:"lastFetch,omitempty"`
	// LastError is why the last attempt failed; UnreachableSince when that
	// began. Both are empty while the repository can be read.
	LastError        string     `json:"lastError,omitempty"`
	UnreachableSince *time.Time `json:"unreachableSince,omitempty"`
}

// SourceState is what a source has.
type SourceState string

// The states of a source. It is empty before it was asked.
const (
	// SourceCurrent has the commit that the site runs.
	SourceCurrent SourceState = "current"
	// SourceBehind has an older one, and never had a newer.
	SourceBehind SourceState = "behind"
	// SourceRefused has one that breaks a rule.
	SourceRefused SourceState = "refused"
	// SourceUnreachable cannot be read, or what it sends is not usable.
	SourceUnreachable SourceState = "unreachable"
)

// SourceStatus is one of the places with the repository.
type SourceStatus struct {
	URL   string      `json:"url"`
	State SourceState `json:"state,omitempty"`
	// Tip is the newest commit seen there.
	Tip string `json:"tip,omitempty"`
	// LastFetch is when it was last read, LastError why the last attempt failed,
	// UnreachableSince when that began.
	LastFetch        *time.Time `json:"lastFetch,omitempty"`
	LastError        string     `json:"lastError,omitempty"`
	UnreachableSince *time.Time `json:"unreachableSince,omitempty"`

	problem string // that was reported
}

// AcceptedStatus is an accepted commit.
type AcceptedStatus struct {
	Commit      string    `json:"commit"`
	Subject     string    `json:"subject"`
	Author      string    `json:"author"`
	Signer      string    `json:"signer,omitempty"`
	Kind        string    `json:"kind,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	At          time.Time `json:"at"`
}

// AppliedStatus is a commit whose objects were all sent. Took is the time from
// the begin of the first pass that the API server answered throughout until all
// objects were sent; ReadyAfter the time until all were healthy, zero while they
// are not. Both are in nanoseconds.
type AppliedStatus struct {
	Commit     string        `json:"commit"`
	At         time.Time     `json:"at"`
	Took       time.Duration `json:"took"`
	ReadyAfter time.Duration `json:"readyAfter,omitempty"`
}

// ObjectsStatus counts the workload objects. Failed and Pending are cut off at
// 50 entries; the counts are not.
type ObjectsStatus struct {
	Total        int              `json:"total"`
	Ready        int              `json:"ready"`
	FailedCount  int              `json:"failedCount"`
	PendingCount int              `json:"pendingCount"`
	Failed       []*apply.Failure `json:"failed,omitempty"`
	Pending      []*apply.Failure `json:"pending,omitempty"`
}

// PrunedStatus is one prune.
type PrunedStatus struct {
	Commit  string     `json:"commit"`
	At      time.Time  `json:"at"`
	Objects []apply.ID `json:"objects"`
	// Kept left Git but are annotated to stay.
	Kept []apply.ID `json:"kept,omitempty"`
}

// Event is one line of the site's history.
type Event struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	Commit string    `json:"commit,omitempty"`
	// Message is a sentence.
	Message string `json:"message"`
	// Warning marks what somebody should look at.
	Warning bool `json:"warning,omitempty"`
}

const (
	maxEvents = 100
	maxListed = 50
)

// board holds the status and tells who waits that it changed.
type board struct {
	mu      sync.Mutex
	status  Status
	changed chan struct{}
}

func newBoard(initial Status) *board {
	return &board{status: initial, changed: make(chan struct{})}
}

// update changes the status in one step.
func (b *board) update(change func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.status)
	close(b.changed)
	b.changed = make(chan struct{})
}

// get returns a copy of the status, and a channel closed at its next change.
func (b *board) get() (Status, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Events = slices.Clone(s.Events)
	s.Objects.Failed = slices.Clone(s.Objects.Failed)
	s.Objects.Pending = slices.Clone(s.Objects.Pending)
	return s, b.changed
}

// event adds a line to the history. It reports whether the line repeats the
// last one of its kind and was only given a new time.
func (s *Status) event(e Event) bool {
	e.Time = time.Now()
	if n := len(s.Events); n > 0 {
		last := &s.Events[n-1]
		if last.Reason == e.Reason && last.Commit == e.Commit && last.Message == e.Message {
			last.Time = e.Time
			return true
		}
	}
	s.Events = append(s.Events, e)
	if n := len(s.Events); n > maxEvents {
		s.Events = slices.Delete(s.Events, 0, n-maxEvents)
	}
	return false
}

func objectsStatus(s apply.Summary) ObjectsStatus {
	return ObjectsStatus{
		Total: s.Total, Ready: s.Ready,
		FailedCount: len(s.Failed), PendingCount: len(s.Pending),
		Failed: s.Failed[:min(len(s.Failed), maxListed)], Pending: s.Pending[:min(len(s.Pending), maxListed)],
	}
}
