package acceptance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// maxPath bounds the commits between the last accepted one and the tip.
const maxPath = 100_000

// Point is the last accepted commit.
type Point struct {
	Commit string
	// Reanchor says that the chain must start at the initial trust root again,
	// because the boot configuration names another one than when Commit was
	// accepted. The tip must still descend from Commit.
	Reanchor bool
}

// Accepted is a commit that may become the cluster.
type Accepted struct {
	ID     string
	Commit *signers.Commit
	// Signer is nil if the boot configuration trusts everybody.
	Signer *signers.Verified
	// Root is the trust root in force after the commit, RootYAML its source;
	// nil if the boot configuration trusts everybody.
	Root     *v1alpha1.TrustRoot
	RootYAML []byte
	// Commits counts the commits from ID back to, but without, the last accepted
	// one, or the one that the chain starts with.
	Commits int
}

// Verifier applies the rules.
type Verifier struct {
	objects Objects
	now     func() time.Time
	report  func(Step)
	oldest  bool
}

// NewVerifier makes a verifier that reads objects. now is the time at which
// keys must be valid.
func NewVerifier(objects Objects, now func() time.Time) *Verifier {
	return &Verifier{objects: objects, now: now}
}

// FromOldest makes a chain without a last accepted commit start at the oldest
// commit that could be its anchor, instead of the newest: the whole history is
// judged, not only what a new machine needs.
func (v *Verifier) FromOldest() { v.oldest = true }

// Verify decides about the commit tip. last is nil at first boot. An error is
// a *[Refusal], or comes from reading objects ([mirror.ErrCorrupt] …) or ctx.
func (v *Verifier) Verify(ctx context.Context, tip string, last *Point, initial v1alpha1.BootTrust) (*Accepted, error) {
	h := newHistory(v.objects)
	got, err := v.verify(ctx, h, tip, last, initial)
	var refusal *Refusal
	if errors.As(err, &refusal) {
		refusal.Commit, refusal.At = tip, time.Now()
		if c, err := h.commit(tip); err == nil {
			refusal.Subject, refusal.Author = clip(c.Subject(), 200), c.Author
		}
	}
	return got, err
}

func (v *Verifier) verify(ctx context.Context, h *history, tip string, last *Point, initial v1alpha1.BootTrust) (*Accepted, error) {
	path, err := v.path(ctx, h, tip, last)
	if err != nil {
		return nil, err
	}
	if initial.None {
		return v.unverified(ctx, h, path, last)
	}
	if initial.Root == nil {
		return nil, breach(RuleTrustRoot, tip, nil, "give the boot configuration trust.root, or trust.none: true to accept commits that nobody signed", "cannot be trusted: no trust root is configured")
	}
	if last == nil || last.Reanchor {
		return v.fromAnchor(ctx, h, path, last, initial.Root)
	}
	return v.fromLast(ctx, h, path)
}

// path lists the first-parent path from tip back to the last accepted commit
// (included), or to the root commit if there is none.
func (v *Verifier) path(ctx context.Context, h *history, tip string, last *Point) ([]string, error) {
	var path []string
	for id := tip; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path = append(path, id)
		if last != nil && !last.Reanchor && id == last.Commit {
			return path, nil
		}
		if len(path) > maxPath {
			return nil, breach(RuleSize, tip, nil, "", "has a path of more than %d commits", maxPath)
		}
		c, err := h.commit(id)
		if err != nil {
			return nil, objectBreach(id, err)
		}
		if len(c.Parents) == 0 {
			break
		}
		id = c.Parents[0]
	}
	if last == nil {
		return path, nil
	}
	for _, id := range path {
		if id == last.Commit {
			return path, nil
		}
	}
	return nil, v.notDescended(ctx, h, tip, last.Commit)
}

// notDescended explains why the last accepted commit is not on the path.
func (v *Verifier) notDescended(ctx context.Context, h *history, tip, last string) error {
	c, err := h.commit(tip)
	if err != nil {
		return objectBreach(tip, err)
	}
	accepted, _ := h.commit(last)
	if all, err := h.ancestors(ctx, tip); err == nil && all[last] {
		return breach(RuleDescent, tip, c,
			"merge your work into the branch instead of the branch into your work: git rebase origin/<branch>, then git push --force-with-lease",
			"descends from the accepted %s only through a merge, not by first parents", Describe(last, accepted))
	}
	if all, err := h.ancestors(ctx, last); err == nil && all[tip] {
		return breach(RuleDescent, tip, c,
			"to go back, push a commit that reverts the newer ones (git revert)",
			"is older than the accepted %s", Describe(last, accepted))
	}
	return breach(RuleDescent, tip, c,
		"rebase onto the accepted commit and push again; the branch was force-pushed or belongs to another repository",
		"does not descend from the accepted %s", Describe(last, accepted))
}

// unverified accepts a path on a machine that was told to trust everybody.
func (v *Verifier) unverified(ctx context.Context, h *history, path []string, last *Point) (*Accepted, error) {
	c, err := h.commit(path[0])
	if err != nil {
		return nil, objectBreach(path[0], err)
	}
	commits := len(path)
	if last != nil {
		if i := slices.Index(path, last.Commit); i >= 0 {
			commits = i
		}
	}
	if v.report != nil {
		if err := v.explainUnverified(ctx, h, path, commits); err != nil {
			return nil, err
		}
	}
	return &Accepted{ID: path[0], Commit: c, Commits: commits}, nil
}

func (v *Verifier) fromLast(ctx context.Context, h *history, path []string) (*Accepted, error) {
	base := path[len(path)-1]
	c, err := h.commit(base)
	if err != nil {
		return nil, objectBreach(base, err)
	}
	start, err := h.rootAt(c)
	if err != nil {
		return nil, rootBreach(base, c, err)
	}
	return v.walk(ctx, h, path, len(path)-1, start, nil)
}

func (v *Verifier) fromAnchor(ctx context.Context, h *history, path []string, last *Point, initial *v1alpha1.TrustRoot) (*Accepted, error) {
	start, err := newRoot(initial)
	if err != nil {
		return nil, breach(RuleTrustRoot, path[0], nil, "correct trust.root in the boot configuration", "cannot be verified: the boot configuration's trust root is unusable: %v", err)
	}
	at, who, err := v.anchor(ctx, h, path, start)
	if err != nil {
		return nil, err
	}
	c, err := h.commit(path[at])
	if err != nil {
		return nil, objectBreach(path[at], err)
	}
	if err := v.explainAnchor(ctx, h, path[at], c, start, who); err != nil {
		return nil, err
	}
	return v.walk(ctx, h, path, at, start, who)
}

// walk checks every commit after path[base] up to the tip.
func (v *Verifier) walk(ctx context.Context, h *history, path []string, base int, start *root, signer *signers.Verified) (*Accepted, error) {
	parent, err := h.commit(path[base])
	if err != nil {
		return nil, objectBreach(path[base], err)
	}
	current, now := start, v.now()
	line := sync.OnceValues(func() (*mainline, error) { return newMainline(h, path) })
	ahead := v.newReadAhead(ctx, path[:base], start.ring)
	defer ahead.close()
	for i := base - 1; i >= 0; i-- {
		got, err := ahead.next(ctx)
		if err != nil {
			return nil, objectBreach(path[i], err)
		}
		if got.ring != current.ring {
			got.signer, got.bad = current.ring.Verify(got.commit, now)
		}
		h.keep(path[i], got.commit)
		s := &step{h: h, id: path[i], at: i, commit: got.commit, parent: parent, root: current, now: now, line: line}
		err = s.check(ctx, got.signer, got.bad)
		v.explain(s, err)
		if err != nil {
			return nil, err
		}
		current, signer, parent = s.next, s.signer, got.commit
	}
	in, err := h.rootAt(parent)
	if err != nil {
		return nil, rootBreach(path[0], parent, err)
	}
	if in.canon != current.canon {
		return nil, fmt.Errorf("verify commit %s: its trust root is not the one the chain ends with", short(path[0]))
	}
	return &Accepted{ID: path[0], Commit: parent, Signer: signer, Root: in.spec, RootYAML: in.yaml, Commits: base}, nil
}

var _ Objects = (*mirror.Mirror)(nil)
