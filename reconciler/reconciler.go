package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/endpoint"
	"github.com/bothy-os/bothy/reconciler/flux"
	"github.com/bothy-os/bothy/reconciler/flux/notify"
	"github.com/bothy-os/bothy/reconciler/flux/source"
	"github.com/bothy-os/bothy/reconciler/history"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// Config is what the hall gives.
type Config struct {
	// StateDir is the node's state directory; git/ and trust/ below it belong to
	// the reconciler.
	StateDir string
	// Boot says where the repository is and where trust starts.
	Boot *v1alpha1.BootConfig
	// Validate judges the machine half of a commit before it is accepted. Its
	// error refuses the commit with rule "cluster configuration" and changes
	// nothing. It may be nil.
	Validate func(context.Context, *Snapshot) error
	// Applies says whether this machine is the one that applies a commit; one that
	// does not only follows it. It may be nil, which is yes.
	Applies func(*Snapshot) bool
	// Kubeconfig is the path of the file with which workloads are applied. It
	// may appear later.
	Kubeconfig string
	// Bundles is a directory in which Git bundles may appear that somebody carried
	// to the machine; "" for none. Once it exists it is the last source, held to
	// the same rules as the others.
	Bundles string
	// Limits bound what the repository may cost; zero means defaults.
	Limits mirror.Limits
	// HealthTimeout overrides the Cluster's spec.gitOps.healthTimeout.
	HealthTimeout time.Duration
	// Machine is the name of this machine, which reports events.
	Machine string
	// Address is the machine's own, if it is known.
	Address string
	// Version is the agent's, Built when it was made: no key is judged by an
	// earlier time. Zero means that this is not known.
	Version string
	Built   time.Time
	// Tracing receives a trace of each commit's way; nil means nobody.
	Tracing trace.TracerProvider
	Log     *slog.Logger
}

// The names of the components.
const (
	ComponentGit       = "git"
	ComponentWorkloads = "workloads"
	ComponentWatches   = "watches"
	ComponentFlux      = "flux"
	ComponentEndpoint  = "endpoint"
)

// Reconciler is both halves of the way from Git to the cluster.
type Reconciler struct {
	cfg   Config
	log   *slog.Logger
	board *board

	metrics *metrics
	history *history.Log
	cluster *cluster
	// artifacts hands the accepted commit, and what other sources deliver, to
	// the controllers of the Flux API.
	artifacts *source.Store
	// definitions puts the definitions of the Flux API into the cluster.
	definitions *flux.Controllers
	// hooks answers the Receivers of the Flux API, endpoint is where they, and
	// pushes, come in; nil if nothing may.
	hooks    *notify.Hooks
	endpoint *endpoint.Endpoint

	// fetchNow and applyNow wake the components before their interval is over.
	fetchNow chan struct{}
	applyNow chan struct{}

	mu       sync.Mutex
	accepted *Snapshot
	replaced chan struct{} // closed when accepted is replaced
	asked    uint64        // number of the newest request to fetch
	answered uint64        // number of the newest request that a fetch answered

	sourceSuspended, syncSuspended bool

	git *git // the component while its mirror is open
}

// New checks the configuration. It reads what earlier lives left on disk, and
// writes only the certificate of an endpoint that has none.
func New(cfg Config) (*Reconciler, error) {
	switch {
	case cfg.Boot == nil:
		return nil, errors.New("reconciler: no boot configuration")
	case cfg.Boot.Trust.Root == nil && !cfg.Boot.Trust.None:
		return nil, errors.New("reconciler: no trust root is configured; give the boot configuration trust.root, or trust.none: true to accept commits that nobody signed")
	case cfg.Boot.Trust.Root != nil && cfg.Boot.Trust.None:
		return nil, errors.New("reconciler: the boot configuration has both trust.root and trust.none; keep one of them")
	case cfg.StateDir == "":
		return nil, errors.New("reconciler: no state directory")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tracing == nil {
		cfg.Tracing = noop.NewTracerProvider()
	}
	if cfg.Boot.Repository.Interval.Duration == 0 || cfg.Boot.Repository.Branch == "" {
		boot := *cfg.Boot
		boot.Default()
		cfg.Boot = &boot
	}
	repo := cfg.Boot.Repository
	r := &Reconciler{
		cfg: cfg, log: cfg.Log,
		fetchNow: make(chan struct{}, 1), applyNow: make(chan struct{}, 1),
		replaced:  make(chan struct{}),
		artifacts: source.NewStore(),
		hooks:     notify.NewHooks(),
		cluster:   newCluster(cfg.Kubeconfig, filepath.Join(cfg.StateDir, "git", "applied"), cfg.Log),
	}
	var err error
	if r.history, err = history.Open(filepath.Join(r.trustDir(), "history.jsonl")); err != nil {
		return nil, err
	}
	r.metrics = newMetrics(r.Status)
	r.definitions = flux.New(flux.Config{Kubeconfig: cfg.Kubeconfig, Log: cfg.Log})
	if r.endpoint, err = r.newEndpoint(); err != nil {
		return nil, err
	}
	r.board = newBoard(Status{
		Source: Source{URL: displayURL(repo), Branch: repo.Branch, Path: repo.Path, TrustNone: cfg.Boot.Trust.None},
		Phase:  PhaseFetching,
		// Known before the mirror is open: a status never denies it.
		Accepted: r.lastAccepted(),
	})
	return r, nil
}

// lastAccepted is the commit accepted in an earlier life; nil if there is none, or
// if its record cannot be read, which the git component complains about.
func (r *Reconciler) lastAccepted() *AcceptedStatus {
	record, err := acceptance.LoadRecord(r.trustDir())
	if err != nil || record == nil {
		return nil
	}
	a := &AcceptedStatus{Commit: record.Commit, Subject: record.Subject, Author: record.Author, At: record.AcceptedAt}
	if v := record.Signer; v != nil {
		a.Signer, a.Kind, a.Fingerprint = v.Signer, v.Kind, v.Fingerprint
	}
	return a
}

// Components returns "git", which needs nothing and is ready once a commit is
// accepted; "workloads", which comes after it, waits for the kubeconfig by
// itself and is ready once every object was sent; "watches", which sees what
// others do to the objects applied; "flux", which serves the Flux API and comes
// last, so that it never holds up the site's own objects; and "endpoint", where
// the site can be pushed to, if the boot configuration has one.
func (r *Reconciler) Components() []supervise.Component {
	components := []supervise.Component{
		{Name: ComponentGit, Run: func(ctx context.Context, ready func()) error { return newGit(r).run(ctx, ready) }},
		{Name: ComponentWatches, Run: r.cluster.watch},
		{Name: ComponentWorkloads, After: []string{ComponentGit}, Run: func(ctx context.Context, ready func()) error { return newWorkloads(r).run(ctx, ready) }},
		{Name: ComponentFlux, After: []string{ComponentWorkloads}, Run: r.runFlux},
	}
	if r.endpoint != nil {
		components = append(components, supervise.Component{Name: ComponentEndpoint, Run: r.endpoint.Run})
	}
	return components
}

// Accepted returns the commit that the site runs, nil before the first, and a
// channel that is closed when another one takes its place.
func (r *Reconciler) Accepted() (*Snapshot, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted, r.replaced
}

func (r *Reconciler) publish(s *Snapshot) {
	r.begun(s)
	r.artifacts.Set(source.BootKey, s.artifact(r.revision(s.Commit)))
	r.mu.Lock()
	r.accepted = s
	close(r.replaced)
	r.replaced = make(chan struct{})
	r.mu.Unlock()
}

// Status returns the present state.
func (r *Reconciler) Status() Status {
	s, _ := r.board.get()
	if r.endpoint != nil {
		e := r.endpoint.Status()
		s.Endpoint = &e
	}
	return s
}

// Changed returns a channel that is closed at the next change of Status. Take
// it before calling Status, so that no change is missed.
func (r *Reconciler) Changed() <-chan struct{} {
	_, changed := r.board.get()
	return changed
}

// Trigger asks for a fetch and an apply now instead of after the interval.
func (r *Reconciler) Trigger() { r.request() }

func (r *Reconciler) request() uint64 {
	r.mu.Lock()
	r.asked++
	n := r.asked
	r.mu.Unlock()
	wake(r.fetchNow)
	wake(r.applyNow)
	return n
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Reconcile fetches now and waits until the commit found is refused, applied
// and healthy, or degraded, or until ctx ends. The error says what stands
// between the newest commit and the cluster: an unreachable repository, a
// [*acceptance.Refusal], objects that failed.
func (r *Reconciler) Reconcile(ctx context.Context) error {
	n := r.request()
	fetched := false
	for {
		s, changed := r.board.get()
		if !fetched {
			r.mu.Lock()
			fetched = r.answered >= n
			r.mu.Unlock()
		}
		if fetched {
			done, err := s.outcome()
			if done || err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for commit: %w (phase %s%s)", ctx.Err(), s.Phase, suffix(s.Message))
		}
	}
}

// outcome says whether the newest commit has come to an end, good or bad.
func (s *Status) outcome() (bool, error) {
	switch {
	case s.Source.LastError != "":
		return true, errors.New(s.Source.LastError)
	case s.Rejected != nil:
		return true, s.Rejected
	case s.Accepted != nil && s.Phase == PhaseFollowing:
		return true, nil
	case s.Accepted == nil || s.Applied == nil && s.Phase != PhaseDegraded:
		return false, nil
	case s.Applied != nil && s.Applied.Commit != s.Accepted.Commit && s.Phase != PhaseDegraded:
		return false, nil
	case s.Phase == PhaseDegraded:
		return true, fmt.Errorf("commit %.12s is degraded%s", s.Accepted.Commit, suffix(s.Message))
	}
	return s.Phase == PhaseReady, nil
}

func suffix(message string) string {
	if message == "" {
		return ""
	}
	return ": " + message
}

func (r *Reconciler) gitDir() string   { return filepath.Join(r.cfg.StateDir, "git") }
func (r *Reconciler) trustDir() string { return filepath.Join(r.cfg.StateDir, "trust") }

// sitePath is the site's directory as fs.FS wants it.
func (r *Reconciler) sitePath() string { return path.Clean(r.cfg.Boot.Repository.Path) }

// report adds a line to the history and the log. What was said last is not said
// again.
func (r *Reconciler) report(e Event, change func(*Status)) {
	repeated := false
	r.board.update(func(s *Status) {
		if change != nil {
			change(s)
		}
		repeated = s.event(e)
	})
	if !repeated {
		r.metrics.events.WithLabelValues(e.Reason).Inc()
	}
	level := slog.LevelInfo
	switch {
	case repeated:
		level = slog.LevelDebug
	case e.Warning:
		level = slog.LevelWarn
	}
	r.log.Log(context.Background(), level, e.Message, "reason", e.Reason, "commit", e.Commit)
}
