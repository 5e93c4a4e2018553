package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bothy-os/bothy/reconciler/acceptance"
)

// Commit saves the changes and commits them alone, with the user's own git, so
// that the key and the program that sign are those of every other commit. Then
// it asks whether a machine would follow: if the trust root that is replaced
// does not allow the commit, the commit is taken back, the changed file stays,
// and the error says why. It returns the commit's id and its explanation.
func (t *Trust) Commit(ctx context.Context, message string) (string, *acceptance.Step, error) {
	if err := needGit(ctx); err != nil {
		return "", nil, err
	}
	parent, err := program(ctx, t.Dir, "git", "rev-parse", "--verify", "HEAD")
	if err != nil {
		return "", nil, fmt.Errorf("commit the trust root: the branch has no commit yet: %w", err)
	}
	parent = strings.TrimSpace(parent)
	if err := t.unchangedSince(ctx); err != nil {
		return "", nil, err
	}
	if err := t.Save(); err != nil {
		return "", nil, err
	}
	files := []string{rootFile}
	if _, err := os.Stat(filepath.Join(t.Dir, allowedSignersFile)); err == nil {
		files = append(files, allowedSignersFile)
	}
	if message == "" {
		message = t.message()
	}
	args := append([]string{"commit", "-q", "-S", "-m", message, "--"}, files...)
	if _, err := program(ctx, t.Dir, "git", args...); err != nil {
		return "", nil, fmt.Errorf("commit the trust root: %w; the changed file is in the work tree", err)
	}
	id, err := program(ctx, t.Dir, "git", "rev-parse", "HEAD")
	if err != nil {
		return "", nil, err
	}
	id = strings.TrimSpace(id)
	step, err := t.wouldBeAccepted(ctx, parent)
	if err != nil {
		_, back := program(ctx, t.Dir, "git", "reset", "-q", "--soft", parent)
		return "", nil, errors.Join(fmt.Errorf("the commit was taken back, because no machine would follow it: %w", err), back)
	}
	return id, step, nil
}

// unchangedSince refuses to sweep earlier edits into the commit.
func (t *Trust) unchangedSince(ctx context.Context) error {
	out, err := program(ctx, t.Dir, "git", "status", "--porcelain", "--", rootFile)
	if err == nil && strings.TrimSpace(out) != "" {
		err = fmt.Errorf("%s has changes that are not committed; commit or undo them first", rootFile)
	}
	return err
}

func (t *Trust) message() string {
	changes := t.Changes()
	if len(changes) == 0 {
		return "trust: no change"
	}
	if len(changes) == 1 {
		return "trust: " + changes[0]
	}
	return "trust: " + changes[0] + " and more\n\n- " + strings.Join(changes, "\n- ")
}

func (t *Trust) wouldBeAccepted(ctx context.Context, parent string) (*acceptance.Step, error) {
	var last acceptance.Step
	v, err := Verify(ctx, VerifyOptions{
		Repository: t.Dir, From: parent, Now: time.Now,
		Report: func(s acceptance.Step) { last = s },
	})
	switch {
	case err != nil:
		return nil, err
	case v.Refusal != nil:
		return nil, v.Refusal
	}
	return &last, nil
}
