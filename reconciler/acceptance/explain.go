package acceptance

import (
	"context"
	"errors"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
)

// Step explains what was decided about one commit on the path from the last
// accepted commit to the newest: who signed it, what it changes, and which
// rules allow that, or which one it breaks.
type Step struct {
	Commit  string    `json:"commit"`
	Subject string    `json:"subject"`
	Author  string    `json:"author"`
	Time    time.Time `json:"time"`
	// Signer is nil if the signature was not believed, or if the boot
	// configuration trusts everybody.
	Signer *signers.Verified `json:"signer,omitempty"`
	// Anchor says that the chain of trust starts with this commit: the boot
	// configuration vouches for it, not a commit before.
	Anchor bool `json:"anchor,omitempty"`
	// RootVersion is the version of the trust root that the commit was judged by.
	// NewRootVersion is set if the commit replaces it.
	RootVersion    int64 `json:"rootVersion,omitempty"`
	NewRootVersion int64 `json:"newRootVersion,omitempty"`
	// Rules are the rules that were needed to allow the changes; empty if the
	// trust root has none, because then every signer may change everything.
	Rules []RuleUse `json:"rules,omitempty"`
	// Files counts the files that differ from the first parent; Changes lists the
	// first of them in the order of their paths.
	Files   int      `json:"files"`
	Changes []Change `json:"changes,omitempty"`
	// Refusal is why the commit was refused; no further step follows.
	Refusal *Refusal `json:"refusal,omitempty"`
}

// RuleUse is a rule of the trust root that allowed changes of a commit.
type RuleUse struct {
	// Rule is the rule's place in the trust root, counted from 0.
	Rule      int      `json:"rule"`
	Paths     []string `json:"paths"`
	Signers   []string `json:"signers"`
	Threshold int      `json:"threshold"`
	// CoSigners signed the merged commits that made the changes.
	CoSigners []string `json:"coSigners,omitempty"`
	// Files counts the changed files that the rule was needed for.
	Files int `json:"files"`
}

// Change is a changed file.
type Change struct {
	Path string `json:"path"`
	// Action is changed or deleted; a file that is new counts as changed.
	Action Action `json:"action"`
}

// Action is what happened to a file.
type Action string

// The actions.
const (
	Changed Action = "changed"
	Deleted Action = "deleted"
)

// maxStepChanges bounds the files that a Step lists.
const maxStepChanges = 100

// OnStep makes Verify explain itself: report is called for each commit that is
// judged, oldest first, from the goroutine that calls Verify. Nothing of a step
// is kept, so that histories of any length can be explained.
func (v *Verifier) OnStep(report func(Step)) { v.report = report }

// explain reports a commit that was judged.
func (v *Verifier) explain(s *step, err error) {
	if v.report == nil {
		return
	}
	out := describeStep(s.id, s.commit)
	out.Signer, out.RootVersion = s.signer, s.root.spec.Version
	out.setChanges(s.changes)
	out.Rules = s.uses
	if s.next != nil && s.next.canon != s.root.canon {
		out.NewRootVersion = s.next.spec.Version
	}
	out.Refusal = refusalOf(err)
	v.report(out)
}

// explainAnchor reports the commit that the chain starts with.
func (v *Verifier) explainAnchor(ctx context.Context, h *history, id string, c *signers.Commit, r *root, who *signers.Verified) error {
	if v.report == nil {
		return nil
	}
	changes, err := h.diff(ctx, "", c.Tree)
	if err != nil {
		return treeBreach(id, c, err)
	}
	out := describeStep(id, c)
	out.Anchor, out.Signer, out.RootVersion = true, who, r.spec.Version
	out.setChanges(changes)
	v.report(out)
	return nil
}

// explainUnverified reports the newest commits of a path that nobody verifies.
func (v *Verifier) explainUnverified(ctx context.Context, h *history, path []string, commits int) error {
	for i := commits - 1; i >= 0; i-- {
		c, err := h.commit(path[i])
		if err != nil {
			return objectBreach(path[i], err)
		}
		before := ""
		if i+1 < len(path) {
			parent, err := h.commit(path[i+1])
			if err != nil {
				return objectBreach(path[i+1], err)
			}
			before = parent.Tree
		}
		changes, err := h.diff(ctx, before, c.Tree)
		if err != nil {
			return treeBreach(path[i], c, err)
		}
		out := describeStep(path[i], c)
		out.setChanges(changes)
		v.report(out)
	}
	return nil
}

func describeStep(id string, c *signers.Commit) Step {
	return Step{Commit: id, Subject: clip(c.Subject(), 200), Author: c.Author, Time: c.CommitTime}
}

func (s *Step) setChanges(changes []change) {
	s.Files = len(changes)
	for _, c := range changes[:min(len(changes), maxStepChanges)] {
		action := Changed
		if c.What == "" {
			action = Deleted
		}
		s.Changes = append(s.Changes, Change{Path: c.Path, Action: action})
	}
}

func refusalOf(err error) *Refusal {
	var r *Refusal
	errors.As(err, &r)
	return r
}
