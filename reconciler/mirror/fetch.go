package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Remote is where a branch is fetched from.
type Remote struct {
	// URL is https://, http:// (loopback only), ssh://, user@host:path, file://
	// or an absolute path.
	URL    string
	Branch string
	// CredentialsFile is read at each fetch, so that it can be rotated.
	CredentialsFile string
}

// source is an open connection to a remote repository.
type source interface {
	// branches lists the branches and their commits.
	branches(ctx context.Context) (map[string]plumbing.Hash, error)
	// pack passes a pack with everything that want needs and the mirror lacks.
	pack(ctx context.Context, m *Mirror, want plumbing.Hash, haves []plumbing.Hash) error
	close()
}

// Fetch brings the branch's newest commit with its history into the mirror and
// returns its id. If the mirror has it already, nothing but the list of
// branches crosses the network. haves are further commits to keep, which the
// server need not send again. Errors of the repository are of type
// *[FetchError].
func (m *Mirror) Fetch(ctx context.Context, r Remote, haves ...string) (string, error) {
	m.fetching.Lock()
	defer m.fetching.Unlock()

	src, err := connect(ctx, r)
	if err != nil {
		return "", fetchError(r, err)
	}
	defer src.close()
	heads, err := src.branches(ctx)
	if err != nil {
		return "", fetchError(r, err)
	}
	want, ok := heads[r.Branch]
	if !ok {
		return "", noBranch(r, heads)
	}
	tip := want.String()
	current, err := m.Tip(r.Branch)
	if err != nil {
		return "", fetchError(r, err)
	}
	if current == tip && m.Has(tip) {
		return tip, nil
	}
	if err := src.pack(ctx, m, want, m.known(append(haves, current))); err != nil {
		return "", fetchError(r, err)
	}
	m.reopen()
	if !m.Has(tip) {
		return "", fetchError(r, fmt.Errorf("it announced commit %s but did not send it", short(tip)))
	}
	if err := m.setTip(r.Branch, tip); err != nil {
		return "", fetchError(r, err)
	}
	if err := m.compact(ctx, r.Branch, tip, haves); err != nil {
		return "", fmt.Errorf("compact mirror %s: %w", m.dir, err)
	}
	return tip, nil
}

func (m *Mirror) known(ids []string) []plumbing.Hash {
	var out []plumbing.Hash
	for _, id := range ids {
		if id != "" && m.Has(id) && !slices.Contains(out, plumbing.NewHash(id)) {
			out = append(out, plumbing.NewHash(id))
		}
	}
	return out
}

func noBranch(r Remote, heads map[string]plumbing.Hash) error {
	if len(heads) == 0 {
		return &FetchError{URL: r.display(), Problem: "is empty", Remedy: fmt.Sprintf("push a commit to branch %q", r.Branch)}
	}
	var names []string
	for name := range heads {
		names = append(names, name)
	}
	slices.Sort(names)
	return &FetchError{
		URL:     r.display(),
		Problem: fmt.Sprintf("has no branch %q, only %s", r.Branch, strings.Join(names[:min(len(names), 8)], ", ")),
		Remedy:  "push the branch, or correct repository.branch in the boot configuration",
	}
}

func fetchError(r Remote, err error) error {
	var known *FetchError
	if errors.As(err, &known) {
		return known
	}
	e := &FetchError{URL: r.display(), Problem: "could not be read", Err: err}
	e.Remedy = remedyFor(r, err)
	return e
}
