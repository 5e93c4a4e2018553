package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// git is the component that fetches and accepts.
type git struct {
	*Reconciler
	repo    v1alpha1.RepositorySpec
	origins []*origin // in order of preference
	media   *media
	mirror  *mirror.Mirror
	ready   func()

	// deciding is held while a commit is judged and recorded, so that fetched
	// and pushed ones take turns. The network is never waited for under it.
	deciding sync.Mutex
	record   *acceptance.Record
	clock    *acceptance.Clock
}

// clockTolerance is how far behind a clock may be before it is worth a word.
const clockTolerance = time.Minute

func newGit(r *Reconciler) *git {
	g := &git{Reconciler: r, repo: r.cfg.Boot.Repository}
	for _, s := range g.repo.All() {
		g.origins = append(g.origins, newOrigin(s))
	}
	return g
}

func (g *git) run(ctx context.Context, ready func()) error {
	g.ready = ready
	var err error
	if g.record, err = acceptance.LoadRecord(g.trustDir()); err != nil {
		return err
	}
	if g.clock, err = acceptance.OpenClock(g.trustDir(), g.cfg.Built, time.Now); err != nil {
		return err
	}
	if g.record != nil {
		g.clock.Saw(g.record.AcceptedAt)
	}
	if behind := g.clock.Behind(); behind > clockTolerance {
		g.report(Event{Reason: "ClockBehind", Warning: true, Message: fmt.Sprintf("the machine's clock is %s behind a time that has passed for certain; the validity of keys is judged by the later one", behind.Round(time.Second))}, nil)
	}
	if err := g.open(); err != nil {
		return err
	}
	if g.cfg.Boot.Trust.None {
		g.report(Event{Reason: "TrustNone", Warning: true, Message: "commits are not verified: the boot configuration says trust: none"}, nil)
	}
	if err := g.resumeFirst(); err != nil {
		return err
	}
	g.media = openMedia(g.log)
	defer g.media.close()
	g.opened(g)
	defer g.opened(nil)
	return g.follow(ctx)
}

// open opens the mirror, and replaces one that is damaged.
func (g *git) open() error {
	var err error
	if g.mirror, err = mirror.Open(g.gitDir(), g.cfg.Limits); err == nil || !errors.Is(err, mirror.ErrCorrupt) {
		return err
	}
	return g.heal(err)
}

// follow asks the sources until ctx ends.
func (g *git) follow(ctx context.Context) error {
	for {
		wait, err := g.poll(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-g.fetchNow:
			// Whoever asks may have changed what a refusal depended on.
			for _, o := range g.origins {
				o.askAgain()
			}
		case <-g.media.changed:
			for _, o := range g.origins {
				o.lookAgain()
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// poll makes one round and says how long to wait for the next. Only errors that
// need a restart of the component are returned.
func (g *git) poll(ctx context.Context) (time.Duration, error) {
	g.mu.Lock()
	asked := g.asked
	g.mu.Unlock()

	if !g.isSuspended(&g.sourceSuspended) {
		if err := g.round(ctx); err != nil {
			return 0, err
		}
	}
	if ctx.Err() != nil {
		return 0, nil //nolint:nilerr // told to end, which is no failure
	}
	// Who waits for this fetch is told after the status says how it ended.
	g.mu.Lock()
	g.answered = max(g.answered, asked)
	g.mu.Unlock()
	g.board.update(func(*Status) {})

	g.tidy(ctx)
	return g.untilNext(), nil
}

// tidy keeps the mirror small, after everybody has what they wait for. It does
// nothing most of the time.
func (g *git) tidy(ctx context.Context) {
	var keep []string
	g.deciding.Lock()
	if g.record != nil {
		keep = append(keep, g.record.Commit)
	}
	g.deciding.Unlock()
	if err := g.mirror.Tidy(ctx, keep...); err != nil && ctx.Err() == nil {
		g.report(Event{Reason: "MirrorNotTidied", Warning: true, Message: fmt.Sprintf("the mirror grows: %v", err)}, nil)
	}
}

// heal replaces a damaged mirror; the record of what was accepted is kept
// elsewhere and stays.
func (g *git) heal(cause error) error {
	g.report(Event{Reason: "MirrorDamaged", Warning: true, Message: fmt.Sprintf("the mirror is fetched again: %v", cause)}, nil)
	if g.mirror == nil {
		return fmt.Errorf("replace mirror: %w", cause)
	}
	return g.mirror.Reset()
}

// isDamage reports whether an error is due to the mirror itself.
func isDamage(err error) bool {
	return !errors.Is(err, mirror.ErrNotFetched) && (errors.Is(err, mirror.ErrCorrupt) || errors.Is(err, mirror.ErrMissing))
}

// resumeFirst shows at once what was accepted in an earlier life, without
// waiting for a source.
func (g *git) resumeFirst() error {
	err := g.resume()
	var refusal *acceptance.Refusal
	if errors.As(err, &refusal) {
		g.refuse(refusal)
		g.board.update(func(s *Status) { s.reject(refusal) })
		return nil
	}
	return err
}

// resume publishes the commit accepted in an earlier life, as soon as the
// mirror has it. It is a refusal if the boot configuration names another path
// than when the commit was accepted.
func (g *git) resume() error {
	if g.record == nil || !g.mirror.Has(g.record.Commit) {
		return nil
	}
	s, err := loadSnapshot(g.mirror, g.record.Commit, g.sitePath())
	if err == nil {
		s.TrustRoot, err = g.record.RootOf()
	}
	var refusal *acceptance.Refusal
	switch {
	case err == nil:
	case errors.As(err, &refusal):
		return refusal
	case isDamage(err), errors.Is(err, mirror.ErrTooLarge):
		return g.heal(err)
	default:
		return fmt.Errorf("read the accepted commit %.12s: %w", g.record.Commit, err)
	}
	s.Signer, s.AcceptedAt = g.record.Signer, g.record.AcceptedAt
	s.resumed, s.source = true, g.record.URL
	g.show(s, "Resumed", "goes on with")
	return nil
}

// show makes a snapshot the accepted one.
func (g *git) show(s *Snapshot, reason, verb string) {
	a := &AcceptedStatus{Commit: s.Commit, Subject: s.Subject, Author: s.Author, At: s.AcceptedAt}
	by := "not verified (trust: none)"
	if s.Signer != nil {
		a.Signer, a.Kind, a.Fingerprint = s.Signer.Signer, s.Signer.Kind, s.Signer.Fingerprint
		by = fmt.Sprintf("signed by %s (%s %s)", a.Signer, a.Kind, a.Fingerprint)
	}
	g.report(Event{Reason: reason, Commit: s.Commit, Message: fmt.Sprintf("%s commit %.12s (%q), %s", verb, s.Commit, s.Subject, by)}, func(st *Status) {
		first := st.Accepted == nil || s.resumed && st.Applied == nil
		st.Accepted = a
		if !s.resumed {
			st.Rejected = nil
		}
		if first {
			st.Phase, st.Message = PhaseWaitAPI, ""
		} else if st.Applied == nil || st.Applied.Commit != s.Commit {
			st.Phase, st.Message = PhaseApplying, ""
		}
	})
	g.publish(s)
	g.ready()
}

func (g *git) phase(p Phase) { g.board.update(func(s *Status) { s.Phase = p }) }

// reject shows a refused commit.
func (s *Status) reject(r *acceptance.Refusal) {
	if s.Rejected = r; r != nil && s.Accepted == nil {
		s.Message = r.Error()
	}
}

// displayURL is what status shows as the repository's URL, without a password:
// the most preferred place.
func displayURL(repo v1alpha1.RepositorySpec) string {
	if all := repo.All(); len(all) > 0 {
		return mirror.Redacted(all[0].URL)
	}
	return pushed
}
