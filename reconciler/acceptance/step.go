package acceptance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// step is one commit on the first-parent path, judged by the trust root of the
// commit before it.
type step struct {
	h      *history
	id     string
	at     int // place on the path, 0 is the tip
	commit *signers.Commit
	parent *signers.Commit
	root   *root // of the parent
	now    time.Time
	// line gives the mainline, which only merges under a threshold need.
	line func() (*mainline, error)

	// What check found out, as far as it got.
	signer  *signers.Verified
	changes []change
	uses    []RuleUse
	next    *root
	made    map[change][]string
}

// check judges the commit, whose signature was looked at before, and finds the
// trust root in force after it. Errors are refusals, or come from reading
// objects.
func (s *step) check(ctx context.Context, who *signers.Verified, bad error) error {
	if bad != nil {
		return signatureBreach(s.id, s.commit, bad)
	}
	s.signer = who
	var err error
	if s.changes, err = s.h.diff(ctx, s.parent.Tree, s.commit.Tree); err != nil {
		return treeBreach(s.id, s.commit, err)
	}
	if err := s.checkRules(ctx); err != nil {
		return err
	}
	s.next, err = s.nextRoot()
	return err
}

// nextRoot reads the root that the commit leaves in force.
func (s *step) nextRoot() (*root, error) {
	next, err := s.h.rootAt(s.commit)
	if err != nil {
		return nil, rootBreach(s.id, s.commit, err)
	}
	if next.spec.Version < s.root.spec.Version {
		return nil, breach(RuleRootVersion, s.id, s.commit,
			fmt.Sprintf("give %s a version of at least %d", RootPath, s.root.spec.Version),
			"sets the version of %s back from %d to %d", RootPath, s.root.spec.Version, next.spec.Version)
	}
	return next, nil
}

// ancestors returns id and everything reachable from it.
func (h *history) ancestors(ctx context.Context, id string) (map[string]bool, error) {
	seen := map[string]bool{}
	for queue := []string{id}; len(queue) > 0; {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := h.commit(id)
		if err != nil {
			return nil, err
		}
		queue = append(queue, c.Parents...)
	}
	return seen, nil
}

func signatureBreach(id string, c *signers.Commit, err error) error {
	var bad *signers.Error
	if !errors.As(err, &bad) {
		return err
	}
	r := breach(RuleSignature, id, c, bad.Remedy, "%s", bad.Error())
	r.Class = bad.Class
	return r
}

func treeBreach(id string, c *signers.Commit, err error) error {
	switch {
	case errors.Is(err, mirror.ErrMalformedTree):
		return breach(RuleTree, id, c, "create the commit again with git", "holds a directory that git would not write: %v", err)
	case errors.Is(err, mirror.ErrTooLarge):
		return breach(RuleSize, id, c, "make the commit smaller", "is too large: %v", err)
	}
	return err
}

// rootBreach turns what is wrong with a trust root into a refusal; errors of
// the mirror stay what they are.
func rootBreach(id string, c *signers.Commit, err error) error {
	switch {
	case errors.Is(err, mirror.ErrCorrupt), errors.Is(err, mirror.ErrMissing):
		return err
	case errors.Is(err, mirror.ErrMalformedTree), errors.Is(err, mirror.ErrTooLarge):
		return treeBreach(id, c, err)
	case errors.Is(err, errNoRoot):
		return breach(RuleTrustRoot, id, c, "restore "+RootPath+": without it no later commit could be verified", "%v", err)
	}
	return breach(RuleTrustRoot, id, c, "correct "+RootPath, "%v", err)
}
