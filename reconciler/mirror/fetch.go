package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// source is an open connection to a remote repository.
type source interface {
	// advertise lists what the repository has.
	advertise(ctx context.Context) (advertised, error)
	// omits reports whether files can be left out of a fetch and be fetched by
	// their ids later.
	omits() bool
	// stage takes in what the wanted objects need and the mirror lacks.
	stage(ctx context.Context, m *Mirror, req request) ([]*staged, error)
	close()
}

// request is what is asked of a source.
type request struct {
	wants []plumbing.Hash
	haves []plumbing.Hash
	// bare leaves out files.
	bare bool
}

// Fetched is what a fetch found.
type Fetched struct {
	// Commit is the commit that the reference points to.
	Commit string
	// Ref is the full name of the branch or tag that was taken; empty for a
	// commit that was fetched by its id.
	Ref string
	// Tag is the id of the annotated tag object that Ref points to; empty if
	// Ref is no annotated tag. It can be read as a TagObject.
	Tag string
}

// Fetch brings the commit that r refers to with its history into the mirror and
// returns its id, see [Mirror.FetchReference].
func (m *Mirror) Fetch(ctx context.Context, r Remote, haves ...string) (string, error) {
	f, err := m.FetchReference(ctx, r, haves...)
	return f.Commit, err
}

// FetchReference brings the commit that r refers to with its history into the
// mirror. If the mirror has it already, nothing but the list of references
// crosses the network and nothing is written. haves are further commits that
// the source need not send again. Whatever the source does, the mirror is left
// as it was or with a complete new commit.
//
// Of a repository that is cloned from a server which allows it, only commits,
// directories and the newest commit's files are fetched; files of older commits
// come when they are read.
//
// Errors of the repository are of type *[FetchError].
func (m *Mirror) FetchReference(ctx context.Context, r Remote, haves ...string) (Fetched, error) {
	m.fetching.Lock()
	defer m.fetching.Unlock()
	f, err := m.fetch(ctx, r, haves)
	if err != nil {
		return Fetched{}, fetchError(r, err)
	}
	if len(m.packs()) > 2*maxPacks { // nobody called Tidy
		return f, m.tidy(ctx, haves)
	}
	return f, nil
}

func (m *Mirror) fetch(ctx context.Context, r Remote, haves []string) (Fetched, error) {
	ctx, watch := watched(ctx, m.limits.Stall)
	defer watch.stop()
	src, err := connect(ctx, r, watch)
	if err != nil {
		return Fetched{}, watch.explain(err)
	}
	defer src.close()
	all, err := src.advertise(ctx)
	if err != nil {
		return Fetched{}, watch.explain(err)
	}
	ref := r.reference()
	c, found, err := ref.choose(all)
	if err != nil {
		return Fetched{}, err
	}
	if !found {
		return Fetched{}, notThere(r, all)
	}
	if err := m.take(ctx, src, r, c.want, haves); err != nil {
		return Fetched{}, watch.explain(err)
	}
	f, err := m.describe(ctx, ref, c)
	if err != nil {
		return Fetched{}, err
	}
	if err := m.fill(ctx, src, r, plumbing.NewHash(f.Commit)); err != nil {
		return Fetched{}, watch.explain(err)
	}
	if err := m.setTip(ref, c.want.String()); err != nil {
		return Fetched{}, err
	}
	return f, nil
}

// take fetches an object with everything that it needs, unless it is there.
func (m *Mirror) take(ctx context.Context, src source, r Remote, want plumbing.Hash, haves []string) error {
	if m.has(want) {
		return nil
	}
	current, err := m.tip(r.reference())
	if err != nil {
		return err
	}
	req := request{wants: []plumbing.Hash{want}, haves: m.known(append(haves, current))}
	req.bare = len(req.haves) == 0 && !r.Full && src.omits()
	parts, err := src.stage(ctx, m, req)
	defer discardAll(parts)
	if err != nil {
		return err
	}
	if req.bare {
		if err := m.markPartial(); err != nil {
			return err
		}
	}
	first := len(m.packs()) == 0
	if err := m.admit(want.String(), parts...); err != nil {
		return err
	}
	if first {
		return m.noteNeeded(m.size())
	}
	return nil
}

func discardAll(parts []*staged) {
	for _, s := range parts {
		s.discard()
	}
}

// describe follows tags to the commit, and looks for a single commit in the
// history of its branch.
func (m *Mirror) describe(ctx context.Context, ref Reference, c chosen) (Fetched, error) {
	f := Fetched{Ref: c.name, Commit: c.want.String()}
	set := m.packs()
	id := c.want
	for range 10 { // tags of tags
		kind, data, err := set.object(id, m.limits.Object)
		if err != nil {
			return f, err
		}
		if kind == plumbing.CommitObject {
			f.Commit = id.String()
			return f, m.checkContains(ctx, ref, &f)
		}
		target, ok := tagTarget(data)
		if kind != plumbing.TagObject || !ok {
			break
		}
		if f.Tag == "" {
			f.Tag = id.String()
		}
		id = target
	}
	return f, fmt.Errorf("%s does not lead to a commit", ref)
}

func tagTarget(data []byte) (plumbing.Hash, bool) {
	text, ok := strings.CutPrefix(string(data), "object ")
	if !ok || len(text) < 2*idLength {
		return plumbing.ZeroHash, false
	}
	return parseID([]byte(text[:2*idLength]))
}

// checkContains replaces the tip of a branch by the commit wanted from it.
func (m *Mirror) checkContains(ctx context.Context, ref Reference, f *Fetched) error {
	if ref.Commit == "" || ref.Commit == f.Commit {
		return nil
	}
	found, err := m.IsAncestor(ctx, ref.Commit, f.Commit)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("commit %s is not in the history of %s", ref.Commit, f.Ref)
	}
	f.Commit = ref.Commit
	return nil
}

func (m *Mirror) known(ids []string) []plumbing.Hash {
	var out []plumbing.Hash
	for _, id := range ids {
		if h := plumbing.NewHash(id); id != "" && m.has(h) && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// notThere says that a repository lacks the reference.
func notThere(r Remote, all advertised) error {
	ref := r.reference()
	names := all.names()
	if len(names) == 0 {
		return &FetchError{URL: r.display(), Problem: "is empty", Remedy: "push a commit to " + ref.String()}
	}
	return &FetchError{
		URL:     r.display(),
		Problem: fmt.Sprintf("has no %s, only %s", ref, strings.Join(names[:min(len(names), 8)], ", ")),
		Remedy:  "push it, or correct " + r.setting("branch"),
	}
}

func fetchError(r Remote, err error) error {
	var known *FetchError
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, ErrCorrupt) {
		return err // of the mirror, not of the source
	}
	return &FetchError{URL: r.display(), Problem: "could not be read", Err: err, Remedy: remedyFor(r, err)}
}

// Ingest takes a pack that somebody pushed into the mirror: within the limits,
// with every object computed, and only if tip and all that it needs is there
// afterwards. Bases of deltas and objects that the mirror has may be missing
// from it. No branch changes: whether the commit is used is for others to say.
// A nil pack is right for a tip that is in the mirror already.
func (m *Mirror) Ingest(ctx context.Context, pack io.Reader, tip string) error {
	ctx, watch := watched(ctx, m.limits.Stall)
	defer watch.stop()
	if pack != nil {
		s, err := m.stage(ctx, watch.pack(pack), m.isPartial())
		if err != nil {
			return watch.explain(err)
		}
		defer s.discard()
		return m.admit(tip, s)
	}
	return m.admit(tip)
}

// Pack writes a pack of what the wanted commits need and somebody who has the
// commits haves lacks. Unknown haves are ignored. It fails for a partial mirror
// whose files of older commits would be needed.
func (m *Mirror) Pack(ctx context.Context, w io.Writer, wants, haves []string) error {
	var from []plumbing.Hash
	for _, id := range wants {
		from = append(from, plumbing.NewHash(id))
	}
	seen := map[plumbing.Hash]bool{}
	err := m.history(ctx, m.known(haves), func(id plumbing.Hash) bool {
		seen[id] = true
		return true
	})
	if err != nil {
		return err
	}
	set := m.packs()
	for _, id := range m.known(haves) {
		tree, _, err := m.commitLinks(set, id)
		if err != nil {
			return err
		}
		if _, err := m.reach(ctx, []plumbing.Hash{tree}, seen); err != nil {
			return err
		}
	}
	ids, err := m.reach(ctx, from, seen)
	if err != nil {
		return err
	}
	_, _, err = set.writePack(ctx, w, ids, m.limits.Object)
	return err
}
