// Package boot shows the boot repository in the Flux API: as GitRepository and
// Kustomization flux-system/flux-system.
//
// Nothing is fetched or applied here. What the reconciler does with the boot
// repository comes in through [Root] and is written to the status of the two
// objects; what an operator asks for on them (reconcile, suspend, resume) goes
// back through it.
//
// It promises: the two objects exist; when Git holds them their spec stays as
// Git has it; a status is written only when something in it changed.
//
// The package must not know how the boot repository is fetched, judged or
// applied.
//
// Map: root.go (the contract), controller.go (the two objects), source.go and
// sync.go (their status).
package boot

import (
	"time"

	"github.com/bothy-os/bothy/reconciler/apply"
)

// Root is the reconciler of the boot repository. Its methods may be called by
// several goroutines and do not block.
type Root interface {
	// Source is the present state of fetching and accepting.
	Source() Source
	// Sync is the present state of applying.
	Sync() Sync
	// Changed returns a channel that is closed at the next change of either.
	// Take it before reading them.
	Changed() <-chan struct{}
	// Trigger asks for a fetch and an apply now. It returns the number of the
	// request; see Source.Answered.
	Trigger() uint64
	// SuspendSource stops or resumes fetching, SuspendSync stops or resumes
	// applying and undoing drift. Repeating a call does nothing.
	SuspendSource(suspend bool)
	SuspendSync(suspend bool)
}

// Source is what became of the newest commit.
type Source struct {
	// URL and Branch are where the repository is, without credentials; Interval
	// is the time between two fetches.
	URL, Branch string
	Interval    time.Duration

	// Revision is the accepted commit, "main@sha1:<commit>"; empty before the
	// first. AcceptedAt is when it was accepted.
	Revision   string
	AcceptedAt time.Time
	// Signer says who signed the accepted commit, such as "alice (ssh
	// SHA256:…)". It is empty if commits are not verified.
	Signer string

	// FetchError says why the repository cannot be read; empty if it can.
	FetchError string
	// Refused is the newest commit if it was refused, in the form of Revision,
	// and Refusal the rule it broke and what to do.
	Refused, Refusal string

	// Answered is the number of the newest request that a finished fetch
	// answered, well or badly.
	Answered uint64
}

// Phase is how far applying a commit has come.
type Phase int

// The phases of a sync.
const (
	// Progressing: being built or applied, or waited for to become healthy.
	Progressing Phase = iota
	// Ready: applied and healthy.
	Ready
	// Failed: Reason and Message say why. It is tried again.
	Failed
)

// Sync is what became of the accepted commit.
type Sync struct {
	// Path is the site's directory in the repository.
	Path string
	// Attempted and Applied are the revisions last tried and last applied whole,
	// in the form of Source.Revision.
	Attempted, Applied string
	Phase              Phase
	// Reason is one of Flux's: BuildFailed, ReconciliationFailed, PruneFailed,
	// HealthCheckFailed, or Progressing. Message is for the operator.
	Reason, Message string
	// Inventory lists the objects applied.
	Inventory []apply.ID
	// Took is how long the last finished sync took.
	Took time.Duration
}
