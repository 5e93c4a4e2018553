package reconciler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

const (
	fetchTimeout = 10 * time.Minute
	retryMin     = time.Second
	retryMax     = 2 * time.Minute
	// mediaInterval is how often it is looked for bundles where no event tells
	// about them, as when a medium is mounted on a directory.
	mediaInterval = 10 * time.Second
)

// origin is one place with the repository, and what is known about it.
type origin struct {
	v1alpha1.RepositorySource
	name   string // the URL without a password
	bundle bool

	due    time.Time // when it is asked next
	failed int       // attempts in a row
	status SourceStatus
	// shown are the tips that it had, newest last; refusals are why one of them
	// is not the cluster, and stay true as long as the accepted commit does.
	shown    []string
	refusals map[string]judged
}

// judged is a refusal, and the accepted commit it was made beside.
type judged struct {
	refusal *acceptance.Refusal
	beside  string
}

func newOrigin(s v1alpha1.RepositorySource) *origin {
	name := mirror.Redacted(s.URL)
	return &origin{
		RepositorySource: s, name: name, bundle: mirror.IsBundle(s.URL),
		status: SourceStatus{URL: name}, refusals: map[string]judged{},
	}
}

// askAgain forgets what was found out.
func (o *origin) askAgain() {
	o.due = time.Time{}
	clear(o.refusals)
}

// lookAgain asks a place for bundles now.
func (o *origin) lookAgain() {
	if o.bundle {
		o.due = time.Time{}
	}
}

// round asks the sources that are due, in order of preference, until one has
// the accepted commit or delivers a new one. What is wrong with one source does
// not keep the next from being asked. Only errors that need a restart of the
// component are returned.
func (g *git) round(ctx context.Context) error {
	g.addCarried()
	delivered := false
	for _, o := range g.origins {
		if time.Now().Before(o.due) {
			if o.status.State == SourceCurrent {
				break
			}
			continue
		}
		state, err := g.ask(ctx, o)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to end, which is no failure
		}
		if isDamage(err) {
			if err := g.heal(err); err != nil {
				return err
			}
		}
		g.settle(o, state, err)
		if delivered = state == accepted; delivered || state == current {
			break
		}
	}
	g.showRound(delivered)
	return nil
}

// addCarried makes the directory of carried bundles a source, once there is one.
func (g *git) addCarried() {
	carried := v1alpha1.RepositorySource{URL: "bundle://" + g.cfg.Bundles}
	if _, err := os.Stat(g.cfg.Bundles); g.cfg.Bundles == "" || err != nil {
		return
	}
	for _, o := range g.origins {
		if o.URL == carried.URL {
			return
		}
	}
	g.origins = append(g.origins, newOrigin(carried))
}

// ask fetches from one source and has judged what it has.
func (g *git) ask(ctx context.Context, o *origin) (verdict, error) {
	places := []string{o.URL}
	if o.bundle {
		g.media.follow(o.URL)
		var err error
		if places, err = mirror.Bundles(o.URL); err != nil {
			return "", err
		}
		if len(places) == 0 {
			return "", &mirror.FetchError{URL: o.name, Problem: "is not there", Err: mirror.ErrNoBundle, Remedy: "plug in the medium with the bundle, or put the file there"}
		}
	}
	var last verdict
	var failed error
	for _, place := range places { // of bundles the newest acceptable one counts
		v, err := g.askPlace(ctx, o, place)
		if v == accepted || v == current || ctx.Err() != nil || isDamage(err) {
			return v, err
		}
		if v != "" && last == "" {
			last = v
		}
		if err != nil && failed == nil {
			failed = err
		}
	}
	return last, failed
}

func (g *git) askPlace(ctx context.Context, o *origin, place string) (verdict, error) {
	c := &candidate{from: o.name, began: time.Now()}
	var err error
	if c.tip, err = g.fetch(ctx, o, place); err != nil {
		return "", err
	}
	c.arrived = time.Now()
	c.knewNewer = func() (bool, error) { return g.wentBack(ctx, o, c.tip) }
	o.status.Tip = c.tip
	if j, ok := o.refusals[c.tip]; ok && j.beside == g.recorded() {
		return refused, j.refusal
	}
	v, err := g.decide(ctx, c)
	var refusal *acceptance.Refusal
	if errors.As(err, &refusal) {
		o.refusals[c.tip] = judged{refusal, g.recorded()}
	}
	if len(o.shown) == 0 || o.shown[len(o.shown)-1] != c.tip {
		const enough = 10
		o.shown = append(o.shown[max(0, len(o.shown)-enough):], c.tip)
	}
	return v, err
}

// wentBack reports whether a source had a descendant of its present tip.
func (g *git) wentBack(ctx context.Context, o *origin, tip string) (bool, error) {
	for _, earlier := range o.shown {
		if earlier == tip || !g.mirror.Has(earlier) {
			continue
		}
		if newer, err := g.mirror.IsAncestor(ctx, tip, earlier); newer || err != nil {
			return newer, err
		}
	}
	return false, nil
}

// recorded is the id of the accepted commit, "" before the first.
func (g *git) recorded() string {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	if g.record == nil {
		return ""
	}
	return g.record.Commit
}

// fetch brings a source's newest commit into the mirror.
func (g *git) fetch(ctx context.Context, o *origin, place string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var haves []string
	if id := g.recorded(); id != "" {
		haves = append(haves, id)
	}
	return g.mirror.Fetch(ctx, mirror.Remote{
		URL: place, Branch: g.repo.Branch, CredentialsFile: o.CredentialsFile,
		// Whoever clones from this machine wants the files of older commits.
		Full: g.cfg.Boot.Endpoint.Pushable(),
	}, haves...)
}

// settle notes how it went with a source: in its status, in an event where
// something changed, and in when it is asked again.
func (g *git) settle(o *origin, v verdict, err error) {
	now := time.Now()
	var refusal *acceptance.Refusal
	if err != nil && !errors.As(err, &refusal) {
		g.settleFailure(o, now, err)
		return
	}
	o.failed, o.due = 0, now.Add(jitter(o.interval(g.repo.Interval.Duration)))
	back := o.status.UnreachableSince != nil
	o.status.LastFetch, o.status.LastError, o.status.UnreachableSince, o.status.problem = &now, "", nil, ""
	o.status.State = SourceState(v)
	if v == accepted {
		o.status.State = SourceCurrent
	}
	if back {
		g.report(Event{Reason: "RepositoryReachable", Commit: o.status.Tip, Message: fmt.Sprintf("repository %s can be read again", o.name)}, nil)
	}
}

func (g *git) settleFailure(o *origin, now time.Time, err error) {
	o.failed++
	o.due = now.Add(min(jitter(retryMin<<min(o.failed-1, 10)), jitter(retryMax)))
	if o.bundle && errors.Is(err, mirror.ErrNoBundle) {
		o.due = now.Add(jitter(o.interval(g.repo.Interval.Duration)))
	}
	o.status.LastError, o.status.State = err.Error(), SourceUnreachable
	if o.status.UnreachableSince == nil {
		o.status.UnreachableSince = &now
	}
	// The same trouble is told once, though the words differ from one attempt to
	// the next.
	problem := err.Error()
	var known *mirror.FetchError
	if errors.As(err, &known) {
		problem = known.Problem + known.Remedy
	}
	if problem == o.status.problem {
		return
	}
	o.status.problem = problem
	message := err.Error()
	switch {
	case len(g.origins) > 1:
		message += "; the other sources are asked"
	case g.recorded() != "":
		message += "; the site keeps running from its mirror"
	}
	reason := "RepositoryUnreachable"
	if known == nil {
		reason = "CommitNotTaken" // this machine's fault
	}
	// A medium that is not plugged in is no cause for alarm.
	g.report(Event{Reason: reason, Warning: !errors.Is(err, mirror.ErrNoBundle), Message: message}, nil)
}

// interval is how long a source that could be read is left alone.
func (o *origin) interval(configured time.Duration) time.Duration {
	if o.bundle {
		return min(configured, mediaInterval)
	}
	return configured
}

// showRound puts what is known about the sources into the status.
func (g *git) showRound(delivered bool) {
	var sources []SourceStatus
	var readable, failing *origin
	var refusal *acceptance.Refusal
	beside := g.recorded()
	for _, o := range g.origins {
		sources = append(sources, o.status)
		switch {
		case o.status.LastFetch != nil && o.status.UnreachableSince == nil && readable == nil:
			readable = o
		case o.status.UnreachableSince != nil && failing == nil:
			failing = o
		}
		if j, ok := o.refusals[o.status.Tip]; ok && j.beside == beside && o.status.State == SourceRefused && refusal == nil {
			refusal = j.refusal
		}
	}
	g.board.update(func(s *Status) {
		s.Source.Sources = sources
		if readable != nil {
			s.Source.LastFetch, s.Source.LastError, s.Source.UnreachableSince = readable.status.LastFetch, "", nil
			s.Fetched = readable.status.Tip
		} else if failing != nil {
			s.Source.LastError, s.Source.UnreachableSince = failing.status.LastError, failing.status.UnreachableSince
		}
		if s.Accepted == nil {
			s.Message = s.Source.LastError
		}
		if !delivered {
			s.reject(refusal)
		}
	})
}

// untilNext is how long it is until a source has to be asked.
func (g *git) untilNext() time.Duration {
	const never = 24 * time.Hour
	if g.isSuspended(&g.sourceSuspended) {
		return never
	}
	next := time.Now().Add(never)
	for _, o := range g.origins {
		if o.due.Before(next) {
			next = o.due
		}
		if o.status.State == SourceCurrent {
			break
		}
	}
	return max(0, time.Until(next))
}

func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
