package repository

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Commit writes files, by their paths in the repository, into a work tree and commits them with the user's own
// git, which signs as it is set up to; other changes in the work tree are left out. If the branch follows another repository
// it is pushed there. It returns the new commit, or "" if all files were in the last one already.
func Commit(ctx context.Context, dir, message string, files map[string][]byte) (string, error) {
	if err := needGit(ctx); err != nil {
		return "", err
	}
	w := &worktree{ctx: ctx, dir: dir}
	top, err := w.git("rev-parse", "--show-toplevel")
	if err != nil {
		return "", fmt.Errorf("%s is not a work tree of git: %w", dir, err)
	}
	w.dir = strings.TrimSpace(top)
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		file := filepath.Join(w.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, files[name], 0o644); err != nil {
			return "", err
		}
	}
	paths := append([]string{"--"}, names...)
	if _, err := w.git(append([]string{"add"}, paths...)...); err != nil {
		return "", err
	}
	changed, err := w.git(append([]string{"diff", "--cached", "--name-only", "HEAD"}, paths...)...)
	if err != nil || strings.TrimSpace(changed) == "" {
		return "", err
	}
	if _, err := w.git(append([]string{"commit", "-q", "-m", message}, paths...)...); err != nil {
		return "", err
	}
	commit, err := w.git("rev-parse", "HEAD")
	if err != nil {
		return "", err
	}
	if _, err := w.git("rev-parse", "-q", "--verify", "@{upstream}"); err != nil {
		return strings.TrimSpace(commit), nil //nolint:nilerr // nowhere to push to: nodes read the work tree
	}
	_, err = w.git("push", "-q")
	return strings.TrimSpace(commit), err
}
