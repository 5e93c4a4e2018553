package acceptance

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// maxChanges bounds the files that one commit may change.
const maxChanges = 100_000

// change is a file that differs between two trees. What names the content on
// the new side: "" if the file is gone, else mode and id.
type change struct {
	Path string
	What string
}

func content(e mirror.Entry) string { return string(e.Mode) + " " + e.ID }

// diff lists what differs between two trees in the order of their paths; an
// empty old id is an empty tree.
func (h *history) diff(ctx context.Context, oldTree, newTree string) ([]change, error) {
	d := &differ{h: h}
	if err := d.trees(ctx, "", oldTree, newTree); err != nil {
		return nil, err
	}
	slices.SortFunc(d.changes, func(a, b change) int { return strings.Compare(a.Path, b.Path) })
	return d.changes, nil
}

type differ struct {
	h       *history
	changes []change
}

func (d *differ) trees(ctx context.Context, dir, oldTree, newTree string) error {
	if oldTree == newTree {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	before, err := d.entries(oldTree)
	if err != nil {
		return err
	}
	after, err := d.entries(newTree)
	if err != nil {
		return err
	}
	// Both are in git's order. A file and a directory of one name are two entries
	// there, so that one in place of the other is a removal and an addition.
	for len(before)+len(after) > 0 {
		var was, is mirror.Entry
		switch order := compareEntries(before, after); {
		case order < 0:
			was, before = before[0], before[1:]
		case order > 0:
			is, after = after[0], after[1:]
		default:
			was, before = before[0], before[1:]
			is, after = after[0], after[1:]
		}
		if was == is {
			continue
		}
		if err := d.entry(ctx, path.Join(dir, cmp.Or(is.Name, was.Name)), was, is); err != nil {
			return err
		}
	}
	return nil
}

// compareEntries orders the first entries of two lists; an empty list comes
// last.
func compareEntries(a, b []mirror.Entry) int {
	switch {
	case len(b) == 0:
		return -1
	case len(a) == 0:
		return 1
	case a[0].Name == b[0].Name && (a[0].Mode == mirror.ModeDir) == (b[0].Mode == mirror.ModeDir):
		return 0
	}
	return strings.Compare(orderKey(a[0]), orderKey(b[0]))
}

// orderKey is what git orders a directory's entries by.
func orderKey(e mirror.Entry) string {
	if e.Mode == mirror.ModeDir {
		return e.Name + "/"
	}
	return e.Name
}

func (d *differ) entries(tree string) ([]mirror.Entry, error) {
	if tree == "" {
		return nil, nil
	}
	return d.h.tree(tree)
}

// entry compares one name; a zero Entry stands for "not there".
func (d *differ) entry(ctx context.Context, at string, before, after mirror.Entry) error {
	switch {
	case before.Mode == mirror.ModeDir || after.Mode == mirror.ModeDir:
		return d.trees(ctx, at, before.ID, after.ID)
	case after.ID == "":
		return d.add(at, "")
	}
	return d.add(at, content(after))
}

func (d *differ) add(at, what string) error {
	if len(d.changes) >= maxChanges {
		return fmt.Errorf("%w: one commit changes more than %d files", mirror.ErrTooLarge, maxChanges)
	}
	d.changes = append(d.changes, change{Path: at, What: what})
	return nil
}

func treeID(e mirror.Entry) string {
	if e.Mode == mirror.ModeDir {
		return e.ID
	}
	return ""
}
