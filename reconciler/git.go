package reconciler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

const (
	fetchTimeout = 10 * time.Minute
	retryMin     = time.Second
	retryMax     = 2 * time.Minute
)

// git is the component that fetches and accepts.
type git struct {
	*Reconciler
	repo   v1alpha1.RepositorySpec
	mirror *mirror.Mirror
	record *acceptance.Record

	// refused is the newest commit that was refused; it is not judged again
	// until somebody asks for it.
	refused string
	failed  int // fetches in a row
	ready   func()
}

func newGit(r *Reconciler) *git { return &git{Reconciler: r, repo: r.cfg.Boot.Repository} }

func (g *git) run(ctx context.Context, ready func()) error {
	g.ready = ready
	var err error
	if g.record, err = acceptance.LoadRecord(g.trustDir()); err != nil {
		return err
	}
	if g.mirror, err = mirror.Open(g.gitDir(), g.cfg.Limits); err != nil {
		if !errors.Is(err, mirror.ErrCorrupt) {
			return err
		}
		if err := g.heal(err); err != nil {
			return err
		}
	}
	if g.cfg.Boot.Trust.None {
		g.report(Event{Reason: "TrustNone", Warning: true, Message: "commits are not verified: the boot configuration says trust: none"}, nil)
	}
	if err := g.resume(); err != nil {
		return err
	}
	for {
		wait, err := g.poll(ctx)
		if err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-g.fetchNow:
			timer.Stop()
			// Whoever asks may have changed what a refusal depended on.
			g.refused = ""
		case <-timer.C:
		}
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

// resume publishes the commit accepted in an earlier life, as soon as the
// mirror has it.
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
		// The boot configuration names another path than when it was accepted.
		g.reject(refusal)
		return nil
	case errors.Is(err, mirror.ErrCorrupt), errors.Is(err, mirror.ErrMissing), errors.Is(err, mirror.ErrTooLarge):
		return g.heal(err)
	default:
		return fmt.Errorf("read the accepted commit %.12s: %w", g.record.Commit, err)
	}
	s.Signer, s.AcceptedAt = g.record.Signer, g.record.AcceptedAt
	g.show(s, "Resumed", "goes on with")
	return nil
}

// poll makes one attempt and says how long to wait for the next. Only errors
// that need a restart of the component are returned.
func (g *git) poll(ctx context.Context) (time.Duration, error) {
	g.mu.Lock()
	asked := g.asked
	g.mu.Unlock()

	tip, err := g.fetch(ctx)
	if ctx.Err() != nil {
		return 0, nil //nolint:nilerr // told to end, which is no failure
	}
	if err == nil {
		err = g.decide(ctx, tip)
	}
	if ctx.Err() != nil {
		return 0, nil //nolint:nilerr // told to end, which is no failure
	}
	// Who waits for this fetch is told after the status says how it ended.
	g.mu.Lock()
	g.answered = max(g.answered, asked)
	g.mu.Unlock()
	g.board.update(func(*Status) {})

	var fetchError *mirror.FetchError
	switch {
	case err == nil:
		g.failed = 0
		return jitter(g.repo.Interval.Duration), nil
	case errors.As(err, &fetchError):
		g.failed++
		return min(jitter(retryMin<<min(g.failed-1, 10)), jitter(retryMax)), nil
	case errors.Is(err, mirror.ErrCorrupt), errors.Is(err, mirror.ErrMissing):
		if err := g.heal(err); err != nil {
			return 0, err
		}
		g.failed++
		return min(jitter(retryMin<<min(g.failed-1, 10)), jitter(retryMax)), nil
	}
	return 0, err
}

// fetch brings the newest commit into the mirror and keeps the source's status.
func (g *git) fetch(ctx context.Context) (string, error) {
	fctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	remote := mirror.Remote{URL: g.repo.URL, Branch: g.repo.Branch, CredentialsFile: g.repo.CredentialsFile}
	var haves []string
	if g.record != nil {
		haves = append(haves, g.record.Commit)
	}
	tip, err := g.mirror.Fetch(fctx, remote, haves...)
	now := time.Now()
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		first := g.Status().Source.UnreachableSince == nil
		change := func(s *Status) {
			s.Source.LastError = err.Error()
			if s.Source.UnreachableSince == nil {
				s.Source.UnreachableSince = &now
			}
			if s.Accepted == nil {
				s.Message = err.Error()
			}
		}
		if first {
			message := err.Error()
			if g.record != nil {
				message += "; the site keeps running from its mirror"
			}
			g.report(Event{Reason: "RepositoryUnreachable", Warning: true, Message: message}, change)
		} else {
			g.board.update(change)
		}
		return "", err
	}
	back := g.Status().Source.UnreachableSince != nil
	g.board.update(func(s *Status) {
		s.Source.LastFetch, s.Source.LastError, s.Source.UnreachableSince = &now, "", nil
		if s.Fetched = tip; s.Accepted == nil {
			s.Message = ""
		}
		if back {
			s.event(Event{Reason: "RepositoryReachable", Commit: tip, Message: "the repository can be read again"})
		}
	})
	return tip, nil
}

// decide accepts or refuses the fetched commit. Errors come from reading the
// mirror or from writing the record.
func (g *git) decide(ctx context.Context, tip string) error {
	current, _ := g.Accepted()
	last := g.record.Point(g.cfg.Boot.Trust)
	switch {
	case last != nil && !last.Reanchor && last.Commit == tip:
		if current == nil || current.Commit != tip {
			return g.resume()
		}
		g.clearRejection()
		return nil
	case tip == g.refused:
		return nil
	}
	if current == nil {
		if g.record != nil {
			// The mirror was lost and is back: go on from where the site was.
			if err := g.resume(); err != nil {
				return err
			}
		}
		g.phase(PhaseVerifying)
	}
	err := g.accept(ctx, tip, last)
	var refusal *acceptance.Refusal
	if errors.As(err, &refusal) {
		g.refused = tip
		g.reject(refusal)
		return nil
	}
	return err
}

func (g *git) accept(ctx context.Context, tip string, last *acceptance.Point) error {
	got, err := acceptance.NewVerifier(g.mirror, g.clock).Verify(ctx, tip, last, g.cfg.Boot.Trust)
	if err != nil {
		return err
	}
	s, err := loadSnapshot(g.mirror, tip, g.sitePath())
	if err != nil {
		return err
	}
	s.Signer, s.TrustRoot = got.Signer, got.Root
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
		Commit: tip, Subject: s.Subject, Author: s.Author, Signer: s.Signer, AcceptedAt: s.AcceptedAt,
		URL: displayURL(g.repo), Branch: g.repo.Branch, Path: g.repo.Path,
		BootTrust: acceptance.TrustID(g.cfg.Boot.Trust), TrustRoot: string(got.RootYAML),
	}
	if err := record.Save(g.trustDir()); err != nil {
		return err
	}
	g.record, g.refused = record, ""
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

// clock is the time at which keys must be valid: never earlier than the last
// acceptance, so that a machine whose clock was reset does not revive old keys.
func (g *git) clock() time.Time {
	now := time.Now()
	if g.record != nil && g.record.AcceptedAt.After(now) {
		return g.record.AcceptedAt
	}
	return now
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
		first := st.Accepted == nil
		st.Accepted = a
		if st.Fetched == s.Commit {
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

func (g *git) reject(r *acceptance.Refusal) {
	g.report(Event{Reason: "Refused", Commit: r.Commit, Warning: true, Message: r.Error()}, func(s *Status) {
		s.Rejected = r
		if s.Accepted == nil {
			s.Message = r.Error()
		}
	})
}

// clearRejection forgets a refused commit that is no longer on the branch.
func (g *git) clearRejection() {
	g.refused = ""
	if g.Status().Rejected != nil {
		g.board.update(func(s *Status) { s.Rejected = nil })
	}
}

func (g *git) phase(p Phase) { g.board.update(func(s *Status) { s.Phase = p }) }

func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// displayURL is the repository's URL without a password.
func displayURL(repo v1alpha1.RepositorySpec) string {
	if u, err := url.Parse(repo.URL); err == nil && u.User != nil {
		return u.Redacted()
	}
	return repo.URL
}
