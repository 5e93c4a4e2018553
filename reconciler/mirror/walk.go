package mirror

import (
	"context"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// commitLinks returns a commit's tree and parents.
func (m *Mirror) commitLinks(set packSet, id plumbing.Hash) (tree plumbing.Hash, parents []plumbing.Hash, err error) {
	kind, data, err := set.object(id, m.limits.Object)
	if err != nil {
		return tree, nil, fmt.Errorf("commit %s: %w", short(id.String()), err)
	}
	if kind != plumbing.CommitObject {
		return tree, nil, fmt.Errorf("object %s: %w: it is a %s, not a commit", short(id.String()), ErrMalformedTree, kind)
	}
	forCommitLinks(data, func(name string, id plumbing.Hash) {
		if name == "tree" {
			tree = id
		} else {
			parents = append(parents, id)
		}
	})
	return tree, parents, nil
}

// IsAncestor reports whether older is newer, or in the history of newer, which
// must be in the mirror.
func (m *Mirror) IsAncestor(ctx context.Context, older, newer string) (bool, error) {
	found := false
	err := m.history(ctx, []plumbing.Hash{plumbing.NewHash(newer)}, func(id plumbing.Hash) bool {
		found = found || id.String() == older
		return !found
	})
	return found, err
}

// history calls visit for commits and their ancestors, once each, newest lines
// first; it does not go on to the parents of a commit for which visit returns
// false.
func (m *Mirror) history(ctx context.Context, from []plumbing.Hash, visit func(plumbing.Hash) bool) error {
	set := m.packs()
	seen := map[plumbing.Hash]bool{}
	queue := from
	for len(queue) > 0 {
		id := queue[0]
		queue = queue[1:]
		if seen[id] {
			continue
		}
		if seen[id] = true; !visit(id) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, parents, err := m.commitLinks(set, id)
		if err != nil {
			return err
		}
		queue = append(queue, parents...)
	}
	return nil
}

// reach lists the objects that commits or tags need and that is not already
// in seen, to which they are added. Files that a partial clone left out are
// left out here as well.
func (m *Mirror) reach(ctx context.Context, from []plumbing.Hash, seen map[plumbing.Hash]bool) ([]plumbing.Hash, error) {
	set := m.packs()
	var out []plumbing.Hash
	queue := append([]plumbing.Hash(nil), from...)
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		kind, data, err := set.object(id, m.limits.Object)
		if err != nil {
			return nil, fmt.Errorf("object %s: %w", short(id.String()), err)
		}
		out = append(out, id)
		l := newLinks(false)
		if err := l.add(kind, data); err != nil {
			return nil, err
		}
		for id := range l.nodes {
			if !seen[id] {
				queue = append(queue, id)
			}
		}
		for id := range l.files {
			if seen[id] {
				continue
			}
			seen[id] = true
			if p, _, err := set.locate(id); err != nil {
				return nil, err
			} else if p != nil {
				out = append(out, id)
			}
		}
	}
	return out, nil
}

// lacking lists the files of a tree that are not in the mirror.
func (m *Mirror) lacking(ctx context.Context, commit plumbing.Hash) ([]plumbing.Hash, error) {
	set := m.packs()
	tree, _, err := m.commitLinks(set, commit)
	if err != nil {
		return nil, err
	}
	var out []plumbing.Hash
	seen := map[plumbing.Hash]bool{}
	queue := []plumbing.Hash{tree}
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		kind, data, err := set.object(id, m.limits.Object)
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", short(id.String()), err)
		}
		l := newLinks(false)
		if kind == plumbing.TreeObject {
			l.tree(data)
		}
		for id := range l.nodes {
			queue = append(queue, id)
		}
		for id := range l.files {
			p, _, err := set.locate(id)
			if err != nil {
				return nil, err
			}
			if p == nil && !seen[id] {
				out = append(out, id)
			}
			seen[id] = true
		}
	}
	return out, nil
}
