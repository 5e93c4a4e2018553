package acceptance

import (
	"context"
	"errors"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
)

// FirstParents visits tip and its first parents, newest first, until visit
// returns false or there is no further one. A malformed commit object is a
// *[Refusal].
func FirstParents(ctx context.Context, objects Objects, tip string, visit func(id string, c *signers.Commit) bool) error {
	for id := tip; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := readCommit(objects, id)
		if err != nil {
			return objectBreach(id, err)
		}
		if !visit(id, c) || len(c.Parents) == 0 {
			return nil
		}
		id = c.Parents[0]
	}
}

// OldestRoot returns the trust root that the repository began with: that of
// the oldest commit on the first-parent path from which every commit up to tip
// has a usable one. It is nil if tip has none.
func OldestRoot(ctx context.Context, objects Objects, tip string) (*v1alpha1.TrustRoot, error) {
	h := newHistory(objects)
	var oldest *v1alpha1.TrustRoot
	var failed error
	err := FirstParents(ctx, objects, tip, func(id string, c *signers.Commit) bool {
		r, err := h.rootAt(c)
		switch {
		case err == nil:
			oldest = r.spec
		case oldest == nil && !errors.Is(err, errNoRoot):
			failed = rootBreach(id, c, err)
		}
		return err == nil
	})
	return oldest, errors.Join(err, failed)
}

// RootAt returns the trust root in a commit's tree, with the file as it stands
// there. The error is a *[Refusal] if the commit has none that is usable.
func RootAt(objects Objects, id string) (*v1alpha1.TrustRoot, []byte, error) {
	h := newHistory(objects)
	c, err := h.commit(id)
	if err != nil {
		return nil, nil, objectBreach(id, err)
	}
	r, err := h.rootAt(c)
	if err != nil {
		return nil, nil, rootBreach(id, c, err)
	}
	return r.spec, r.yaml, nil
}
