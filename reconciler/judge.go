package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// verdict is what became of a commit that somebody offered.
type verdict string

const (
	// accepted: it is the cluster from now on.
	accepted verdict = "accepted"
	// current: it is the cluster already.
	current verdict = "current"
	// behind: the cluster has it in its history; somebody else was faster.
	behind verdict = "behind"
	// refused: it breaks a rule.
	refused verdict = "refused"
)

// pushed is where a commit comes from that was pushed to this machine.
const pushed = "push"

// candidate is a commit in the mirror that may become the cluster.
type candidate struct {
	tip string
	// from is where it was found; knewNewer says that the same place has shown a
	// descendant of it before.
	from      string
	knewNewer func() (bool, error)
	// began and arrived are when fetching it began and ended.
	began, arrived time.Time
}

// decide accepts or refuses a commit. Errors other than a refusal come from
// reading the mirror or from writing the record, and leave everything as it is.
func (g *git) decide(ctx context.Context, c *candidate) (verdict, error) {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	now, _ := g.Accepted()
	last := g.record.Point(g.cfg.Boot.Trust)
	if last != nil && !last.Reanchor && last.Commit == c.tip {
		if now == nil || now.Commit != c.tip {
			return g.verdictOf(current, g.resume())
		}
		return current, nil
	}
	if now == nil {
		if g.record != nil {
			// The mirror was lost and is back: go on from where the site was.
			if err := g.resumeFirst(); err != nil {
				return "", err
			}
		}
		g.phase(PhaseVerifying)
	}
	if late, err := g.isBehind(ctx, c, last); late || err != nil {
		return behind, err
	}
	return g.verdictOf(accepted, g.accept(ctx, c, last))
}

// verdictOf says good unless there was an error, and reports a refusal.
func (g *git) verdictOf(good verdict, err error) (verdict, error) {
	var refusal *acceptance.Refusal
	switch {
	case errors.As(err, &refusal):
		g.refuse(refusal)
		return refused, refusal
	case err != nil:
		return "", err
	}
	return good, nil
}

// isBehind reports whether a commit is an older one which its source never
// got beyond. A source that goes back is another matter: that is refused by the
// rule of descent.
func (g *git) isBehind(ctx context.Context, c *candidate, last *acceptance.Point) (bool, error) {
	if last == nil || c.from == pushed || c.from == g.record.URL || !g.mirror.Has(last.Commit) {
		return false, nil
	}
	older, err := g.mirror.IsAncestor(ctx, c.tip, last.Commit)
	if err != nil || !older {
		return false, err
	}
	went, err := c.knewNewer()
	return !went, err
}

func (g *git) accept(ctx context.Context, c *candidate, last *acceptance.Point) error {
	began := time.Now()
	got, err := acceptance.NewVerifier(g.mirror, g.clock.Now).Verify(ctx, c.tip, last, g.cfg.Boot.Trust)
	if err != nil {
		return err
	}
	verified := time.Now()
	s, err := loadSnapshot(g.mirror, c.tip, g.sitePath())
	if err != nil {
		return err
	}
	s.Signer, s.TrustRoot, s.source = got.Signer, got.Root, c.from
	s.way.steps = []step{{stepFetch, c.began, c.arrived}, {stepVerify, began, verified}}
	if g.cfg.Validate != nil {
		if err := g.cfg.Validate(ctx, s); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return invalid(s, got.Commit, err)
		}
	}
	s.AcceptedAt = time.Now().UTC()
	record := &acceptance.Record{
		Commit: c.tip, Subject: s.Subject, Author: s.Author, Signer: s.Signer, AcceptedAt: s.AcceptedAt,
		URL: c.from, Branch: g.repo.Branch, Path: g.repo.Path,
		BootTrust: acceptance.TrustID(g.cfg.Boot.Trust), TrustRoot: string(got.RootYAML),
	}
	if err := record.Save(g.trustDir()); err != nil {
		return err
	}
	if err := g.clock.Save(); err != nil {
		g.log.Warn("clock", "error", err)
	}
	s.way.add(stepValidate, verified)
	g.record = record
	g.show(s, "Accepted", "accepted")
	return nil
}

func invalid(s *Snapshot, c *signers.Commit, err error) *acceptance.Refusal {
	return &acceptance.Refusal{
		Commit: s.Commit, Offender: s.Commit, Subject: s.Subject, Author: s.Author, At: time.Now(),
		Rule:    acceptance.RuleCluster,
		Problem: fmt.Sprintf("%s: %v", acceptance.Describe(s.Commit, c), err),
		Remedy:  "correct the file and push a new commit",
	}
}

// refuse says that a commit was refused.
func (g *git) refuse(r *acceptance.Refusal) {
	g.metrics.refused.WithLabelValues(r.Rule).Inc()
	g.report(Event{Reason: "Refused", Commit: r.Commit, Warning: true, Message: r.Error()}, nil)
}

// Push takes a commit that was pushed to this machine the way of a fetched one:
// its objects come in with pack, under the limits of the mirror, and the rules
// judge it. Nil means that it is the accepted commit now, on disk for good. A
// refusal is an *acceptance.Refusal and changes nothing; other errors come from
// the pack or from this machine. pack is nil if the push brings no objects.
// Nothing waits for a fetch that is under way.
func (r *Reconciler) Push(ctx context.Context, tip string, pack io.Reader) error {
	g := r.running()
	if g == nil {
		return errors.New("the mirror is not open yet; try again in a moment")
	}
	c := &candidate{tip: tip, from: pushed, began: time.Now()}
	if err := g.mirror.Ingest(ctx, pack, tip); err != nil {
		return fmt.Errorf("take in commit %.12s: %w", tip, err)
	}
	c.arrived = time.Now()
	_, err := g.decide(ctx, c)
	if isDamage(err) {
		r.Trigger() // heals it
	}
	return err
}

// Head returns the branch that the site follows and the commit that it runs, ""
// before the first.
func (r *Reconciler) Head() (branch, commit string) {
	if s, _ := r.Accepted(); s != nil {
		commit = s.Commit
	}
	return r.cfg.Boot.Repository.Branch, commit
}

// Mirror returns the mirror that the accepted commit can be read from, nil
// before it is open.
func (r *Reconciler) Mirror() *mirror.Mirror {
	if g := r.running(); g != nil {
		return g.mirror
	}
	return nil
}

// running returns the git component while its mirror is open.
func (r *Reconciler) running() *git {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.git
}

func (r *Reconciler) opened(g *git) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.git = g
}
