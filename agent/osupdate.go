package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/update"
	"github.com/bothy-os/bothy/reconciler"
)

// OSPhase is where a machine is on the way to the operating system that Git names.
type OSPhase string

// The phases.
const (
	// OSForeign: the machine has an operating system of its own, which is not bothy's to
	// change.
	OSForeign OSPhase = "not-bothys"
	// OSIdle: Git names no system, or has not been read.
	OSIdle OSPhase = "idle"
	// OSCurrent: the machine runs what Git names.
	OSCurrent OSPhase = "current"
	// OSFetching, OSWriting: the image comes in, and is written beside the running system.
	OSFetching OSPhase = "fetching"
	OSWriting  OSPhase = "writing"
	// OSWaiting: it is there, and the machine waits for a moment to start it.
	OSWaiting    OSPhase = "waiting"
	OSRestarting OSPhase = "restarting"
	// OSOnTrial: it runs, and is not known to be healthy yet.
	OSOnTrial OSPhase = "on-trial"
	// OSFailed: Message says why the machine does not run what Git names.
	OSFailed OSPhase = "failed"
)

// OSStatus is the operating system of a machine.
type OSStatus struct {
	Phase   OSPhase `json:"phase"`
	Message string  `json:"message,omitempty"`
	// Wanted is the image that the accepted commit names.
	Wanted string `json:"wanted,omitempty"`
	// Read counts the bytes of it that came in.
	Read int64 `json:"read,omitempty"`
	// Flavour and Version are those of the running system.
	Flavour string `json:"flavour,omitempty"`
	Version string `json:"version,omitempty"`
	// Update is nil where the system is not bothy's.
	Update *update.Status `json:"update,omitempty"`
}

const (
	osComponent = "os-update"
	// osRetryMin and osRetryMax bound the pause after an attempt that failed and could go
	// better: a registry that does not answer, an image without signature.
	osRetryMin, osRetryMax = 30 * time.Second, 15 * time.Minute
	// osCalmLimit is how long a machine may take to come to rest before it is started again
	// all the same.
	osCalmLimit = 5 * time.Minute
	// osSettle is how long a system on trial has to be healthy without interruption.
	osSettle = 15 * time.Second
	// osLook is how often health is looked at when nothing says that it has changed.
	osLook = 2 * time.Second
	// osPart is what the commit's status calls the operating system.
	osPart = "os"
	// reasonOSUpdate and others are reasons of events.
	reasonOSFailed = "OSUpdateFailed"
)

// osUpdates keeps the operating system the one that the accepted commit names.
type osUpdates struct {
	*hall
	log *slog.Logger
	// updater is nil where the system is not bothy's, or broken says why it cannot be
	// replaced.
	updater *update.Updater
	broken  error
	own     bool
	release map[string]string
	places  osPlaces

	mu      sync.Mutex
	status  OSStatus
	changed chan struct{}
	// again has the component look at everything anew.
	again chan struct{}
	// ending is closed when the agent ends.
	ending <-chan struct{}
	// owing says that the next machine was not told yet that it is its turn.
	owing bool
}

// newOSUpdates finds out how the machine stands. After a trial that has ended it puts back
// what there was before, which has to happen before anything else starts.
func newOSUpdates(h *hall) *osUpdates {
	o := &osUpdates{hall: h, log: h.log.With("component", osComponent), places: boot.StateDir, changed: make(chan struct{}), again: make(chan struct{}, 1), status: OSStatus{Phase: OSForeign}}
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil || !update.IsOwn(string(text)) {
		return o
	}
	o.own, o.release = true, osRelease("/etc/os-release")
	o.status = OSStatus{Phase: OSIdle, Flavour: o.release["VARIANT_ID"], Version: o.release["VERSION_ID"]}
	o.updater, err = update.Open(update.Config{
		Dir: filepath.Join(boot.StateDir, update.Dir), CommandLine: string(text), Version: o.status.Version, Flavour: o.status.Flavour,
		Boot: h.env.BootID, Machine: update.NewHardware(), Log: o.log,
	})
	if err == nil {
		err = o.begin()
	}
	if err != nil {
		o.broken = err
		o.log.Error("the operating system cannot be updated", "err", err)
	}
	return o
}

func osRelease(file string) map[string]string {
	out := map[string]string{}
	data, err := os.ReadFile(file)
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			out[key] = strings.Trim(value, `"`)
		}
	}
	return out
}

// begin does what has to be done before Kubernetes starts.
func (o *osUpdates) begin() error {
	st, _ := o.updater.Status()
	o.log.Info("operating system", "version", st.Current.Version, "digest", st.Current.Digest, "standing", st.Standing)
	switch st.Standing {
	case update.OnTrial:
		// From here on the old system may not be able to read what it kept.
		return o.updater.Wrote(bootstrap.Format())
	case update.Returned:
		if runningKube() != 0 {
			return errors.New("the state of the system before cannot be put back while Kubernetes runs: start the machine again")
		}
		if bootstrap.NewerFormat(st.Trial.Wrote, bootstrap.Format()) && st.Trial.Wrote != "" {
			o.log.Warn("the system on trial has written a newer format, putting back the state from before", "format", st.Trial.Wrote)
			if err := restoreState(o.updater.SnapshotDir(), boot.StateDir); err != nil {
				return fmt.Errorf("put back the state from before the update: %w", err)
			}
		}
		ending, err := o.updater.Settle()
		if err != nil {
			return err
		}
		o.log.Warn("the old system runs again", "image", ending.Trial.Image, "reason", ending.Reason, "again", ending.Again)
		if ending.Again {
			o.reconciler.Note(reconciler.Event{Reason: "OSUpdateInterrupted", Commit: ending.Trial.Commit, Warning: true, Message: fmt.Sprintf(
				"the operating system %s did not stay: %s; it is tried once more", ending.Trial.Image, ending.Reason)})
		}
	}
	return nil
}

func (o *osUpdates) component() supervise.Component {
	return supervise.Component{Name: osComponent, Run: func(ctx context.Context, ready func()) error {
		ready()
		o.ending = ctx.Done()
		if !o.own || o.updater == nil {
			return o.explain(ctx)
		}
		if st, _ := o.updater.Status(); st.Standing == update.OnTrial {
			if err := o.trial(ctx); err != nil || ctx.Err() != nil {
				return err
			}
		}
		return o.follow(ctx)
	}}
}

// explain says, whenever a commit names a system, why this machine does not take it.
func (o *osUpdates) explain(ctx context.Context) error {
	for {
		snap, accepted := o.reconciler.Accepted()
		if snap != nil {
			spec, err := o.spec(snap)
			if err == nil {
				o.refuse(snap.Commit, spec)
			}
		}
		select {
		case <-accepted:
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *osUpdates) refuse(commit string, spec v1alpha1.OSSpec) {
	switch {
	case spec.Image == "":
		o.set(func(s *OSStatus) { s.Wanted, s.Message = "", "" })
		o.reconciler.MarkMachine(osPart, nil)
	case !o.own:
		o.set(func(s *OSStatus) {
			s.Wanted, s.Message = spec.Image, "spec.os.image is ignored: this machine has an operating system of its own"
		})
	default:
		o.fail(commit, spec.Image, o.broken)
	}
}

func (o *osUpdates) spec(snap *reconciler.Snapshot) (v1alpha1.OSSpec, error) {
	s, err := decodeSite(snap, o.boot.Repository.Path, o.env.Name)
	if err != nil {
		return v1alpha1.OSSpec{}, err
	}
	return s.os, nil
}

// follow brings in what commits name, one after the other.
func (o *osUpdates) follow(ctx context.Context) error {
	pause := osRetryMin
	for {
		snap, accepted := o.reconciler.Accepted()
		var retry <-chan time.Time
		if snap != nil {
			attempt, cancel := context.WithCancelCause(ctx)
			stop := cancelOn(attempt, accepted, cancel)
			err := o.bring(attempt, snap)
			superseded := attempt.Err() != nil
			cancel(nil)
			stop()
			switch {
			case ctx.Err() != nil:
				return nil //nolint:nilerr // the agent ends
			case superseded:
				continue // another commit was accepted
			case err == nil:
				pause = osRetryMin
			default:
				var bad *update.BadError
				if !errors.As(err, &bad) {
					retry = time.After(pause)
					pause = min(2*pause, osRetryMax)
				}
			}
		}
		if o.owing && retry == nil {
			retry = time.After(osRetryMin)
		}
		select {
		case <-accepted:
			pause = osRetryMin
		case <-o.again:
			pause = osRetryMin
		case <-retry:
		case <-ctx.Done():
			return nil
		}
	}
}

var errSuperseded = errors.New("another commit was accepted")

// cancelOn ends a context when a channel is closed.
func cancelOn(ctx context.Context, closed <-chan struct{}, cancel context.CancelCauseFunc) (stop func()) {
	var done sync.WaitGroup
	done.Go(func() {
		select {
		case <-closed:
			cancel(errSuperseded)
		case <-ctx.Done():
		}
	})
	return done.Wait
}

// bring makes the machine run what a commit names. When all goes well it does not return:
// the machine starts again.
func (o *osUpdates) bring(ctx context.Context, snap *reconciler.Snapshot) error {
	spec, err := o.spec(snap)
	if err != nil || spec.Image == "" {
		if err == nil {
			o.set(func(s *OSStatus) { s.Phase, s.Message, s.Wanted = OSIdle, "", "" })
			o.reconciler.MarkMachine(osPart, nil)
		}
		return err
	}
	wanted, err := o.updater.Check(spec.Digest())
	if err == nil && wanted {
		err = o.replace(ctx, snap, spec)
		if errors.Is(err, update.ErrRuns) {
			wanted, err = false, o.updater.Adopt(spec.Digest())
		}
	}
	switch {
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), o.updater.Abandon())
	case err != nil:
		o.fail(snap.Commit, spec.Image, err)
		o.passTurn(ctx)
		return err
	case !wanted:
		if err := os.RemoveAll(o.places.staging()); err != nil {
			return err
		}
		o.passTurn(ctx)
		o.set(func(s *OSStatus) { s.Phase, s.Message, s.Wanted, s.Read = OSCurrent, "", spec.Image, 0 })
		o.reconciler.MarkMachine(osPart, nil)
	}
	return nil
}

// passTurn lets the next machine of the site have its turn, or notes that it is still to.
func (o *osUpdates) passTurn(ctx context.Context) {
	turn, err := o.newTurn()
	if err == nil {
		err = turn.pass(ctx)
	}
	if o.owing = err != nil; o.owing {
		o.log.Debug("the next machine has to wait", "err", err)
	}
}

// replace fetches and verifies the image, writes it beside the running system, and starts it.
func (o *osUpdates) replace(ctx context.Context, snap *reconciler.Snapshot, spec v1alpha1.OSSpec) error {
	o.set(func(s *OSStatus) { s.Phase, s.Message, s.Wanted, s.Read = OSFetching, "", spec.Image, 0 })
	o.log.Info("another operating system is wanted", "image", spec.Image, "commit", snap.Commit)
	artifact, err := o.fetch(ctx, snap, spec)
	if err != nil {
		return err
	}
	defer artifact.Close()
	o.set(func(s *OSStatus) { s.Phase, s.Message = OSWriting, "" })
	img := artifact.image
	img.Reference, img.Digest, img.Commit = spec.Image, spec.Digest(), snap.Commit
	if err := o.updater.Stage(ctx, img); err != nil {
		return err
	}
	artifact.discard() // it is in the slot; the place is needed for the snapshot
	o.set(func(s *OSStatus) { s.Phase = OSWaiting })
	turn, err := o.newTurn()
	if err == nil {
		err = turn.take(ctx, spec.HealthTimeout.Duration, func(why string) { o.set(func(s *OSStatus) { s.Message = why }) })
	}
	if err == nil {
		err = o.calm(ctx)
	}
	if err == nil {
		err = o.restart(ctx, snap, spec)
	}
	if err != nil {
		return errors.Join(err, o.updater.Abandon())
	}
	return nil
}

// restart is the way into the new system. Until the firmware has been told, everything can go
// on as it was.
func (o *osUpdates) restart(ctx context.Context, snap *reconciler.Snapshot, spec v1alpha1.OSSpec) error {
	before := o.baseline()
	o.set(func(s *OSStatus) { s.Phase = OSRestarting })
	o.reconciler.Note(reconciler.Event{Reason: "OSUpdateStarts", Commit: snap.Commit, Message: fmt.Sprintf("starting the operating system %s", spec.Image)})
	// Nothing is acknowledged any more that the snapshot would not have.
	err := o.pauseSite(ctx, true)
	if err == nil {
		err = keepState(boot.StateDir, o.updater.SnapshotDir())
	}
	if err == nil {
		err = o.updater.Arm(update.Terms{Limit: spec.HealthTimeout.Duration, Baseline: before})
	}
	if err != nil {
		return errors.Join(err, o.pauseSite(context.WithoutCancel(ctx), false))
	}
	return o.startAgain()
}

// startAgain has process 1 start the machine again, in good order. Nothing that is committed
// meanwhile is looked at.
func (o *osUpdates) startAgain() error {
	if err := unix.Kill(1, unix.SIGTERM); err != nil {
		return fmt.Errorf("start the machine again: %w", err)
	}
	<-o.ending
	return nil
}

// trial finds out whether this system is as good as the one before. It returns when it is.
func (o *osUpdates) trial(ctx context.Context) error {
	st, _ := o.updater.Status()
	t := st.Trial
	// Since the kernel began, whatever the clock says meanwhile.
	left := t.Limit - uptime()
	o.set(func(s *OSStatus) { s.Phase, s.Wanted = OSOnTrial, t.Image })
	before, err := decodeBaseline(t.Baseline)
	if err != nil {
		return err
	}
	o.log.Info("this system is on trial", "image", t.Image, "left", left)
	problem := o.awaitHealth(ctx, before, left)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the agent ends: the trial goes on with the next
	}
	if problem != "" {
		reason := fmt.Sprintf("it was not healthy within %s: %s", t.Limit, problem)
		o.log.Error("this system does not work, going back", "reason", reason)
		if err := o.updater.GiveUp(reason); err != nil {
			return err
		}
		return o.startAgain()
	}
	if err := o.updater.Commit(); err != nil {
		return err
	}
	o.log.Info("this system stays", "image", t.Image)
	o.reconciler.Note(reconciler.Event{Reason: "OSUpdated", Commit: t.Commit, Message: fmt.Sprintf("the operating system %s runs, and is healthy", t.Image)})
	return nil
}

// uptime is how long the kernel has been running.
func uptime() time.Duration {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return 0
	}
	return time.Duration(since.Nano())
}

func (o *osUpdates) fail(commit, image string, err error) {
	o.set(func(s *OSStatus) { s.Phase, s.Message, s.Wanted = OSFailed, err.Error(), image })
	o.log.Warn("the machine does not run what the commit names", "commit", commit, "image", image, "err", err)
	o.reconciler.MarkMachine(osPart, &reconciler.MachineProblem{Commit: commit, Reason: reasonOSFailed, Message: "operating system: " + err.Error()})
}

func (o *osUpdates) set(change func(*OSStatus)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(&o.status)
	close(o.changed)
	o.changed = make(chan struct{})
}

// describe fills in the status of a node.
func (o *osUpdates) describe() *OSStatus {
	o.mu.Lock()
	st := o.status
	o.mu.Unlock()
	if o.updater != nil {
		u, _ := o.updater.Status()
		st.Update = &u
	}
	return &st
}

func (o *osUpdates) changedChan() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// retry forgets that an image did not work, and looks again.
func (o *osUpdates) retry(digest string) error {
	if !o.own || o.updater == nil {
		return errors.New("the operating system of this machine is not bothy's")
	}
	known, err := o.updater.Forgive(digest)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("no image %s is remembered as one that did not work", digest)
	}
	select {
	case o.again <- struct{}{}:
	default:
	}
	return nil
}
