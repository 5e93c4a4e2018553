package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/build"
)

const (
	// inventoryName is the name of the inventory of a site's directory.
	inventoryName = "site"

	// While the API server starts it is asked often: it is on the path from
	// power-on to a running workload.
	apiRetryFast = 100 * time.Millisecond
	apiRetrySlow = time.Second
	apiFastFor   = 30 * time.Second

	objectRetryMin = time.Second
	objectRetryMax = time.Minute

	healthPollFast = 100 * time.Millisecond
	healthPollSlow = 2 * time.Second
	healthFastFor  = 15 * time.Second
)

// workloads is the component that applies.
type workloads struct {
	*Reconciler
	client *apply.Client
	engine *apply.Engine
	ready  func()
}

func newWorkloads(r *Reconciler) *workloads { return &workloads{Reconciler: r} }

// run reconciles one commit after another. A newer one ends whatever was being
// done for the one before.
func (w *workloads) run(ctx context.Context, ready func()) error {
	w.ready = ready
	for {
		s, replaced := w.Accepted()
		if s != nil {
			until, cancel := untilClosed(ctx, replaced)
			err := w.reconcile(until, s)
			ended := until.Err() != nil
			cancel()
			if err != nil && !ended {
				return err
			}
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return nil
		}
	}
}

// untilClosed returns a context that ends with ctx or when ch is closed.
func untilClosed(ctx context.Context, ch <-chan struct{}) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-ch:
			cancel()
		case <-out.Done():
		}
	}()
	return out, cancel
}

// reconcile works on one commit until ctx ends.
func (w *workloads) reconcile(ctx context.Context, s *Snapshot) error {
	started := time.Now()
	objects, err := build.Build(ctx, s.Files, s.Path)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		// The objects of the commit before stay as they are.
		w.report(Event{Reason: "BuildFailed", Commit: s.Commit, Warning: true, Message: fmt.Sprintf("commit %.12s cannot be built: %v", s.Commit, err)}, func(st *Status) {
			st.Phase, st.Message = PhaseDegraded, "build failed: "+err.Error()
		})
		w.ready()
		<-ctx.Done()
		return ctx.Err()
	}
	w.log.Debug("built", "commit", s.Commit, "objects", len(objects), "took", time.Since(started))
	job := &job{workloads: w, snapshot: s, desired: apply.Desired{Commit: s.Commit, Objects: objects, AllowPrune: s.allowsPrune}}
	return job.run(ctx)
}

// job is the work on one commit.
type job struct {
	*workloads
	snapshot *Snapshot
	desired  apply.Desired
	// started is when the first complete pass began.
	started  time.Time
	lastPass *apply.Pass
}

func (j *job) run(ctx context.Context) error {
	if err := j.connected(ctx, func() error {
		if j.engine == nil {
			j.engine = apply.NewEngine(j.client, inventoryName, j.log)
		}
		return j.engine.Set(j.desired)
	}); err != nil {
		return err
	}
	interval := j.cfg.Boot.Repository.Interval.Duration
	retry := objectRetryMin
	for {
		if err := j.sync(ctx); err != nil {
			return err
		}
		clean := len(j.lastPass.Failures) == 0
		healthy := false
		if clean {
			retry = objectRetryMin
			var err error
			if healthy, err = j.awaitHealth(ctx); err != nil {
				return err
			}
		}
		wait := jitter(interval)
		if !clean {
			wait, retry = jitter(retry), min(retry*2, objectRetryMax)
		} else if !healthy {
			wait = min(wait, 10*time.Second)
		}
		if err := j.idle(ctx, wait); err != nil {
			return err
		}
		if err := j.refresh(ctx); err != nil {
			return err
		}
	}
}

// sync makes a pass over all objects and reports it.
func (j *job) sync(ctx context.Context) error {
	var pass *apply.Pass
	err := j.connected(ctx, func() error {
		attempt := time.Now()
		var err error
		if pass, err = j.engine.Sync(ctx); err == nil && j.started.IsZero() {
			j.started = attempt
		}
		return err
	})
	if err != nil {
		return err
	}
	first := j.lastPass == nil || len(j.lastPass.Failures) > 0
	j.lastPass = pass
	summary, err := j.health(ctx)
	if err != nil {
		return err
	}
	j.reportPass(pass, summary, first)
	j.ready()
	return nil
}

func (j *job) reportPass(pass *apply.Pass, summary apply.Summary, first bool) {
	commit, now := j.snapshot.Commit, time.Now()
	if len(pass.Pruned)+len(pass.Kept) > 0 {
		j.report(Event{Reason: "Pruned", Commit: commit, Message: fmt.Sprintf("deleted %s that left Git%s", count(len(pass.Pruned)), list(pass.Pruned))}, func(s *Status) {
			s.LastPruned = &PrunedStatus{Commit: commit, At: now, Objects: pass.Pruned, Kept: pass.Kept}
		})
	}
	if len(pass.Failures) > 0 {
		j.report(Event{Reason: "ApplyFailed", Commit: commit, Warning: true, Message: fmt.Sprintf("%s failed, first %v", count(len(pass.Failures)), pass.Failures[0])}, func(s *Status) {
			s.Objects = objectsStatus(summary)
			s.Phase, s.Message = PhaseDegraded, pass.Failures[0].Error()
		})
		return
	}
	applied := &AppliedStatus{Commit: commit, At: now, Took: now.Sub(j.started)}
	change := func(s *Status) {
		s.Objects = objectsStatus(summary)
		if s.Applied == nil || s.Applied.Commit != commit {
			s.Applied = applied
		}
		switch {
		case pass.Guard != nil:
			s.Phase, s.Message = PhaseDegraded, pass.Guard.Problem+"; "+pass.Guard.Remedy
		case summary.Done():
			s.ready(now.Sub(j.started))
		default:
			s.Phase, s.Message = PhaseWaitReady, ""
		}
	}
	switch {
	case pass.Guard != nil:
		j.report(Event{Reason: "PruneGuarded", Commit: commit, Warning: true, Message: pass.Guard.Problem + "; " + pass.Guard.Remedy}, change)
	case first:
		j.report(Event{Reason: "Applied", Commit: commit, Message: fmt.Sprintf("applied commit %.12s: %s, %d sent, in %s", commit, count(summary.Total), pass.Sent, applied.Took.Round(time.Millisecond))}, change)
	default:
		j.board.update(change)
	}
}

func (s *Status) ready(after time.Duration) {
	s.Phase, s.Message = PhaseReady, ""
	if s.Applied != nil && s.Applied.ReadyAfter == 0 {
		s.Applied.ReadyAfter = after
	}
}

// awaitHealth polls until all objects are healthy (true) or the time is over.
func (j *job) awaitHealth(ctx context.Context) (bool, error) {
	if j.lastPass.Guard != nil {
		return false, nil //nolint:nilerr // a refusal is a result, which the status has already
	}
	began := time.Now()
	for {
		summary, err := j.health(ctx)
		if err != nil {
			return false, err
		}
		if summary.Done() {
			j.becameReady(summary)
			return true, nil
		}
		late := time.Since(began) > j.cfg.HealthTimeout
		j.board.update(func(s *Status) {
			s.Objects = objectsStatus(summary)
			switch {
			case len(summary.Failed) > 0:
				s.Phase, s.Message = PhaseDegraded, summary.Failed[0].Error()
			case late:
				s.Phase, s.Message = PhaseDegraded, fmt.Sprintf("not healthy after %s: %v", j.cfg.HealthTimeout, summary.Pending[0])
			default:
				s.Phase, s.Message = PhaseWaitReady, summary.Pending[0].Error()
			}
		})
		if late {
			j.report(Event{Reason: "HealthTimeout", Commit: j.snapshot.Commit, Warning: true, Message: j.Status().Message}, nil)
			return false, nil
		}
		wait := healthPollFast
		if time.Since(began) > healthFastFor {
			wait = healthPollSlow
		}
		if err := j.sleep(ctx, wait); err != nil {
			return false, err
		}
	}
}

func (j *job) becameReady(summary apply.Summary) {
	after := time.Since(j.started)
	change := func(s *Status) {
		s.Objects = objectsStatus(summary)
		s.ready(after)
	}
	if j.Status().Phase == PhaseReady {
		change = func(s *Status) { s.Objects = objectsStatus(summary) }
		j.board.update(change)
		return
	}
	j.report(Event{Reason: "Ready", Commit: j.snapshot.Commit, Message: fmt.Sprintf("commit %.12s is healthy: %s", j.snapshot.Commit, count(summary.Total))}, change)
}

func (j *job) health(ctx context.Context) (summary apply.Summary, err error) {
	err = j.connected(ctx, func() error {
		summary, err = j.engine.Health(ctx)
		return err
	})
	return summary, err
}

// refresh looks for drift; the next sync undoes it.
func (j *job) refresh(ctx context.Context) error {
	return j.connected(ctx, func() error {
		drifted, err := j.engine.Refresh(ctx)
		if len(drifted) > 0 {
			j.report(Event{Reason: "Drift", Commit: j.snapshot.Commit, Message: fmt.Sprintf("%s changed in the cluster, setting back%s", count(len(drifted)), list(drifted))}, nil)
		}
		return err
	})
}

// idle waits until it is time to look again, or somebody asks.
func (j *job) idle(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-j.applyNow:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (j *job) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connected calls do, again and again while the API server does not answer.
func (j *job) connected(ctx context.Context, do func() error) error {
	began := time.Now()
	var lastChange time.Time
	for attempt := 0; ; attempt++ {
		err := j.try(do)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, apply.ErrUnavailable) {
			return err
		}
		if now := time.Now(); now.Sub(lastChange) > time.Second {
			lastChange = now
			j.board.update(func(s *Status) { s.Phase, s.Message = PhaseWaitAPI, err.Error() })
		}
		wait := apiRetryFast
		if time.Since(began) > apiFastFor {
			wait = apiRetrySlow
		}
		if attempt%20 == 19 {
			// The kubeconfig may have been written anew, with another CA.
			j.client = nil
		}
		if err := j.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func (j *job) try(do func() error) error {
	if j.client == nil {
		client, err := apply.Connect(j.cfg.Kubeconfig)
		if err != nil {
			return err
		}
		j.client = client
		if j.engine != nil {
			j.engine.Reconnect(client)
		}
	}
	return do()
}

func count(n int) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}

func list(ids []apply.ID) string {
	const shown = 5
	text := ""
	for i, id := range ids {
		if i == shown {
			return text + fmt.Sprintf(" and %d more", len(ids)-shown)
		}
		if i == 0 {
			text = ": "
		} else {
			text += ", "
		}
		text += id.String()
	}
	return text
}
