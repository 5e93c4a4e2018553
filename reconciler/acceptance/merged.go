package acceptance

import (
	"context"
	"slices"

	"github.com/bothy-os/bothy/internal/signers"
)

// contributors tells who gave the files of a merge their present content: the
// signers of the merged commits that made it. Only the commit that made the
// content counts: whoever signed another change on the same branch did not
// review it.
func (s *step) contributors(ctx context.Context) (map[change][]string, error) {
	if s.made != nil {
		return s.made, nil
	}
	made := map[change][]string{}
	if len(s.commit.Parents) > 1 {
		line, err := s.line()
		if err != nil {
			return nil, err
		}
		merged, err := line.brought(ctx, s.at, s.commit.Parents[1:])
		if err != nil {
			return nil, treeBreach(s.id, s.commit, err)
		}
		for _, id := range merged.order {
			c := merged.commits[id]
			who, err := s.root.ring.Verify(c, s.now)
			if err != nil {
				continue // the merge vouches for it, but nobody else does
			}
			if err := s.contribute(ctx, made, c, who.Signer); err != nil {
				return nil, treeBreach(s.id, s.commit, err)
			}
		}
	}
	s.made = made
	return made, nil
}

// contribute notes what a commit's own change made: what differs from each of
// its parents.
func (s *step) contribute(ctx context.Context, made map[change][]string, c *signers.Commit, signer string) error {
	var trees []string
	for _, parent := range c.Parents {
		p, err := s.h.commit(parent)
		if err != nil {
			return err
		}
		trees = append(trees, p.Tree)
	}
	first := ""
	if len(trees) > 0 {
		first = trees[0]
	}
	changes, err := s.h.diff(ctx, first, c.Tree)
	if err != nil {
		return err
	}
	for _, ch := range changes {
		own := true
		for _, tree := range trees[min(1, len(trees)):] {
			before, err := s.h.contentAt(tree, ch.Path)
			if err != nil {
				return err
			}
			own = own && before != ch.What
		}
		if own && !slices.Contains(made[ch], signer) {
			if len(made) >= maxChanges {
				return errTooManyMerged
			}
			made[ch] = append(made[ch], signer)
		}
	}
	return nil
}

// contentAt is what change.What would say of a path; "" if there is no file.
func (h *history) contentAt(tree, at string) (string, error) {
	e, err := h.lookup(tree, at)
	if err != nil || e == nil || treeID(*e) != "" {
		return "", err
	}
	return content(*e), nil
}
