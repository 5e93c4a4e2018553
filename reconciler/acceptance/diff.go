package acceptance

import (
	"context"
	"fmt"
	"path"

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

// diff lists what differs between two trees; an empty old id is an empty tree.
func (h *history) diff(ctx context.Context, oldTree, newTree string) ([]change, error) {
	d := &differ{h: h}
	if err := d.trees(ctx, "", oldTree, newTree); err != nil {
		return nil, err
	}
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
	for name, e := range after {
		if err := d.entry(ctx, path.Join(dir, name), before[name], e); err != nil {
			return err
		}
	}
	for name, e := range before {
		if _, kept := after[name]; !kept {
			if err := d.entry(ctx, path.Join(dir, name), e, mirror.Entry{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry compares one name; a zero Entry stands for "not there". A file that
// becomes a directory counts as the file's removal and its files' addition.
func (d *differ) entry(ctx context.Context, at string, before, after mirror.Entry) error {
	if before == after {
		return nil
	}
	if before.Mode == mirror.ModeDir || after.Mode == mirror.ModeDir {
		if err := d.trees(ctx, at, treeID(before), treeID(after)); err != nil {
			return err
		}
	}
	switch {
	case after.ID != "" && after.Mode != mirror.ModeDir:
		return d.add(at, content(after))
	case before.ID != "" && before.Mode != mirror.ModeDir:
		return d.add(at, "")
	}
	return nil
}

func (d *differ) add(at, what string) error {
	if len(d.changes) >= maxChanges {
		return fmt.Errorf("%w: one commit changes more than %d files", mirror.ErrTooLarge, maxChanges)
	}
	d.changes = append(d.changes, change{Path: at, What: what})
	return nil
}

func (d *differ) entries(tree string) (map[string]mirror.Entry, error) {
	out := map[string]mirror.Entry{}
	if tree == "" {
		return out, nil
	}
	list, err := d.h.objects.Tree(tree)
	for _, e := range list {
		out[e.Name] = e
	}
	return out, err
}

func treeID(e mirror.Entry) string {
	if e.Mode == mirror.ModeDir {
		return e.ID
	}
	return ""
}
