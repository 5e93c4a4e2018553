package gate

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/images/verify"
	"github.com/bothy-os/bothy/internal/cosign"
)

// maxRemembered bounds the verdicts that are kept. A node has a few hundred
// images at most.
const maxRemembered = 4096

// Points at which the gate is asked, for its counts.
const (
	Pull      = "pull"
	Import    = "import"
	Record    = "record"
	Container = "container"
	Task      = "task"
	Volume    = "volume"
	Layer     = "layer"
	Admission = "admission"
)

// Config says where the gate has its things.
type Config struct {
	// File is what [Write] writes.
	File string
	// Signatures are those that were fetched for pulled images.
	Signatures *signatures.Store
	// Layouts are OCI layout directories whose signatures count, too. They are
	// looked at when an image is judged that was not before. One that does not
	// exist has none.
	Layouts []string
	// Log receives a line for each denial.
	Log *slog.Logger
}

// Gate decides what may run. It is safe for concurrent use.
type Gate struct {
	cfg     Config
	layouts *signatures.Layouts

	mu         sync.Mutex
	current    *inForce
	remembered map[string]verify.Verdict
	status     Status
	changed    chan struct{}
}

// New returns a gate.
func New(cfg Config) *Gate {
	return &Gate{cfg: cfg, layouts: signatures.NewLayouts(cfg.Layouts), remembered: map[string]verify.Verdict{}, status: Status{Denied: map[string]uint64{}}, changed: make(chan struct{})}
}

// Changed returns a channel that is closed at the next denial or change of
// policy.
func (g *Gate) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// tell closes the channel of Changed; the lock is held.
func (g *Gate) tell() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// Status is what the gate does.
type Status struct {
	// InForce says that the site has a policy; Commit and Hash are which.
	InForce bool   `json:"inForce"`
	Commit  string `json:"commit,omitempty"`
	Hash    string `json:"hash,omitempty"`
	Rules   int    `json:"rules,omitempty"`
	// Error is why nothing new may run.
	Error string `json:"error,omitempty"`
	// Allowed and Warned count answers, Denied those by point.
	Allowed uint64            `json:"allowed"`
	Warned  uint64            `json:"warned"`
	Denied  map[string]uint64 `json:"denied,omitempty"`
	// LastDenial is the newest one.
	LastDenial *Denial `json:"lastDenial,omitempty"`
}

// Denial is an image that was not let through.
type Denial struct {
	Time   time.Time `json:"time"`
	Point  string    `json:"point"`
	Image  string    `json:"image"`
	Reason string    `json:"reason"`
}

// Status returns what the gate goes by and what it has decided.
func (g *Gate) Status() Status {
	f := g.inForce()
	g.mu.Lock()
	defer g.mu.Unlock()
	st := g.status
	st.Denied = map[string]uint64{}
	for k, v := range g.status.Denied {
		st.Denied[k] = v
	}
	st.Commit = f.commit
	if f.err != nil {
		st.Error = f.err.Error()
	}
	if f.policy != nil {
		st.InForce, st.Hash, st.Rules = true, f.policy.Hash, len(f.policy.Rules)
	}
	return st
}

// Try judges an image by a policy that is not in force.
func (g *Gate) Try(p *policy.Policy, image verify.Image) verify.Verdict {
	return verify.Judge(p, image, g.Attached)
}

// InForce reports whether anything can be denied: false for a site without a
// policy.
func (g *Gate) InForce() bool {
	f := g.inForce()
	return f.policy != nil || f.err != nil
}

// inForce returns what the file says, which it reads again when it was replaced.
func (g *Gate) inForce() *inForce {
	id, err := identify(g.cfg.File)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.current = missing(err)
		return g.current
	}
	if g.current == nil || g.current.id != id {
		before := g.current
		g.current = load(g.cfg.File, id)
		if before == nil || before.hash() != g.current.hash() {
			clear(g.remembered)
			g.note(g.current)
		}
		g.tell()
	}
	return g.current
}

func (g *Gate) note(f *inForce) {
	switch {
	case f.err != nil:
		g.cfg.Log.Error("image policy", "err", f.err)
	case f.policy == nil:
		g.cfg.Log.Info("the site has no image policy: any image may run", "commit", f.commit)
	default:
		g.cfg.Log.Info("image policy in force", "commit", f.commit, "rules", len(f.policy.Rules), "hash", f.policy.Hash[:12])
	}
}

// Check says whether an image may pass a point; the error is why not.
func (g *Gate) Check(point string, image verify.Image) error {
	return g.CheckAny(point, []verify.Image{image})
}

// CheckAny lets pass what may pass under one of its names. A digest that is
// denied passes under none.
func (g *Gate) CheckAny(point string, images []verify.Image) error {
	f := g.inForce()
	if f.err != nil {
		return g.denied(point, imageName(images), f.err)
	}
	if f.policy == nil {
		return nil
	}
	if len(images) == 0 {
		return g.denied(point, "", fmt.Errorf("image policy: the image is not known to containerd by any name"))
	}
	var first error
	for _, image := range images {
		v := g.judge(f, image)
		if v.Allowed {
			g.allowed(point, v)
			return nil
		}
		if first == nil {
			first = v.Err()
		}
	}
	return g.denied(point, imageName(images), first)
}

// Explain judges an image without counting it. It is nil where the site has no
// policy.
func (g *Gate) Explain(image verify.Image) (*verify.Verdict, error) {
	f := g.inForce()
	if f.err != nil || f.policy == nil {
		return nil, f.err
	}
	v := g.judge(f, image)
	return &v, nil
}

func (g *Gate) judge(f *inForce, image verify.Image) verify.Verdict {
	key := image.Name + " " + strings.Join(image.Digests, " ")
	g.mu.Lock()
	v, ok := g.remembered[key]
	ok = ok && g.current == f
	g.mu.Unlock()
	if ok {
		return v
	}
	v = verify.Judge(f.policy, image, g.Attached)
	g.remember(f, key, v)
	return v
}

// Attached gathers what is attached to a digest, wherever it is on this node. It
// proves nothing.
func (g *Gate) Attached(digest string) (*cosign.Signatures, error) {
	all := &cosign.Signatures{Digest: digest}
	found, err := g.cfg.Signatures.Get(digest)
	all.Merge(found)
	more, unread := g.layouts.Get(digest)
	all.Merge(more)
	if err := errors.Join(err, unread); err != nil && all.Empty() {
		return nil, err
	}
	return all, nil
}

// remember keeps what was allowed and nothing else: a signature that is missing
// today may arrive tomorrow.
func (g *Gate) remember(f *inForce, key string, v verify.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !v.Allowed || g.current != f {
		return
	}
	if len(g.remembered) >= maxRemembered {
		clear(g.remembered)
	}
	g.remembered[key] = v
}

func (g *Gate) allowed(point string, v verify.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status.Allowed++
	if v.Reason != "" {
		g.status.Warned++
		g.cfg.Log.Warn("image policy warns", "point", point, "image", v.Image, "reason", v.Reason)
	}
}

func (g *Gate) denied(point, image string, why error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status.Denied[point]++
	defer g.tell()
	g.status.LastDenial = &Denial{Time: time.Now(), Point: point, Image: image, Reason: why.Error()}
	g.cfg.Log.Warn("image denied", "point", point, "image", image, "reason", why)
	return why
}

// Refuse counts and returns a denial that is not about signatures.
func (g *Gate) Refuse(point, image string, why error) error { return g.denied(point, image, why) }

// Keep stores signatures that came with an image.
func (g *Gate) Keep(found *cosign.Signatures) error { return g.cfg.Signatures.Add(found) }

func imageName(images []verify.Image) string {
	if len(images) == 0 {
		return ""
	}
	return images[0].String()
}
