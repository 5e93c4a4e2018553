package acceptance

import (
	"context"
	"errors"
	"fmt"

	"github.com/bothy-os/bothy/internal/signers"
)

// anchor finds where the chain of trust starts when nothing was accepted yet:
// the newest commit on the path whose trust root equals the initial one and
// that is signed by a signer of it who may change everything the commit holds.
// It returns the index in path, which lists commits from the tip backwards.
//
// A signer limited to some paths cannot be an anchor, or they could present a
// whole repository of their own at first boot. Thresholds do not apply: the
// boot configuration is what vouches for this commit's trust root.
func (v *Verifier) anchor(ctx context.Context, h *history, path []string, initial *root) (int, *signers.Verified, error) {
	var newest error
	for n := range path {
		i := n
		if v.oldest {
			i = len(path) - 1 - n
		}
		id := path[i]
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		c, err := h.commit(id)
		if err != nil {
			return 0, nil, objectBreach(id, err)
		}
		here, err := h.rootAt(c)
		if err != nil || here.canon != initial.canon {
			if err := rootBreach(id, c, err); err != nil && !isRefusal(err) {
				return 0, nil, err
			}
			continue
		}
		who, err := v.vouches(ctx, h, id, c, initial)
		if err == nil {
			return i, who, nil
		}
		if !isRefusal(err) {
			return 0, nil, err
		}
		if newest == nil {
			newest = err
		}
	}
	if newest != nil {
		return 0, nil, newest
	}
	tip, err := h.commit(path[0])
	if err != nil {
		return 0, nil, objectBreach(path[0], err)
	}
	return 0, nil, breach(RuleAnchor, path[0], tip,
		fmt.Sprintf("put the %s of a commit on this branch into trust.root of the boot configuration", RootPath),
		"does not chain to the boot configuration: no commit on its path has that trust root (version %d) in %s", initial.spec.Version, RootPath)
}

// vouches checks the signature of a possible anchor and that its signer has a
// say in every file.
func (v *Verifier) vouches(ctx context.Context, h *history, id string, c *signers.Commit, initial *root) (*signers.Verified, error) {
	who, err := initial.ring.Verify(c, v.now())
	if err != nil {
		return nil, signatureBreach(id, c, err)
	}
	if len(initial.spec.Rules) == 0 {
		return who, nil
	}
	files, err := h.diff(ctx, "", c.Tree)
	if err != nil {
		return nil, treeBreach(id, c, err)
	}
	for _, f := range files {
		if !hasSay(initial, who.Signer, f.Path) {
			return nil, breach(RuleAnchor, id, c, "let a signer who may change everything sign a commit on top",
				"is signed by %q, who may not change %s and so cannot vouch for a repository that was never seen before", who.Signer, f.Path)
		}
	}
	return who, nil
}

func hasSay(r *root, signer, at string) bool {
	for _, rule := range r.spec.Rules {
		if Covers(rule, at) {
			for _, name := range rule.Signers {
				if name == signer {
					return true
				}
			}
		}
	}
	return false
}

func isRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

// objectBreach turns a malformed commit object into a refusal.
func objectBreach(id string, err error) error {
	var bad *signers.Error
	if errors.As(err, &bad) {
		return signatureBreach(id, nil, err)
	}
	return err
}
