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
	commit *signers.Commit
	parent string
	root   *root // of the parent
	now    time.Time

	signer *signers.Verified
	merged []mergedCommit
	walked bool
}

type mergedCommit struct {
	commit *signers.Commit
	signer *signers.Verified
}

// check returns the trust root in force after the commit. Errors are refusals,
// or come from reading objects.
func (s *step) check(ctx context.Context) (*root, error) {
	var err error
	if s.signer, err = s.root.ring.Verify(s.commit, s.now); err != nil {
		return nil, signatureBreach(s.id, s.commit, err)
	}
	parent, err := s.h.commit(s.parent)
	if err != nil {
		return nil, err
	}
	changes, err := s.h.diff(ctx, parent.Tree, s.commit.Tree)
	if err != nil {
		return nil, treeBreach(s.id, s.commit, err)
	}
	if err := s.checkRules(ctx, changes); err != nil {
		return nil, err
	}
	return s.nextRoot()
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

// maxMerged bounds the commits that one merge may bring.
const maxMerged = 10_000

// mergedCommits lists the signed commits that this merge brings to the
// first-parent path.
func (s *step) mergedCommits(ctx context.Context) ([]mergedCommit, error) {
	if s.walked || len(s.commit.Parents) < 2 {
		return s.merged, nil
	}
	known, err := s.h.ancestors(ctx, s.parent)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for queue := append([]string(nil), s.commit.Parents[1:]...); len(queue) > 0; {
		id := queue[0]
		queue = queue[1:]
		if known[id] || seen[id] {
			continue
		}
		if seen[id] = true; len(seen) > maxMerged {
			return nil, breach(RuleThreshold, s.id, s.commit, "merge smaller branches", "merges more than %d commits", maxMerged)
		}
		c, err := s.h.commit(id)
		if err != nil {
			return nil, err
		}
		queue = append(queue, c.Parents...)
		if who, err := s.root.ring.Verify(c, s.now); err == nil {
			s.merged = append(s.merged, mergedCommit{commit: c, signer: who})
		}
	}
	s.walked = true
	return s.merged, nil
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
