package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// local is a repository on this machine. It is read without git's help: no
// program is started and no configuration of it takes effect.
type local struct {
	dir     string
	packs   packSet
	storage *filesystem.Storage // for what is not in a pack, and for references
}

func openLocal(path string) (source, error) {
	dir := path
	if st, err := os.Stat(filepath.Join(path, ".git")); err == nil {
		if !st.IsDir() {
			return nil, fmt.Errorf("%s is a linked work tree; give the path of the repository itself", path)
		}
		dir = filepath.Join(path, ".git")
	}
	if _, err := os.Stat(filepath.Join(dir, "objects")); err != nil {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		return nil, transport.ErrRepositoryNotFound
	}
	if _, err := os.Stat(filepath.Join(dir, "shallow")); err == nil {
		return nil, errShallow
	}
	storage := filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(cacheSize), filesystem.Options{})
	if cfg, err := storage.Config(); err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	} else if format := cfg.Raw.Section("extensions").Option("objectformat"); format != "" && format != "sha1" {
		return nil, fmt.Errorf("its object format is %s, which is not supported yet; use a repository with SHA-1 object ids", format)
	}
	packs, err := openPacks(filepath.Join(dir, "objects", "pack"), newBases(cacheSize))
	if err != nil {
		return nil, notOurs(err)
	}
	return &local{dir: dir, packs: packs, storage: storage}, nil
}

// notOurs is an error of a foreign repository, which must not be taken for
// damage of the mirror.
func notOurs(err error) error {
	if errors.Is(err, ErrCorrupt) {
		return errors.New("it is damaged: " + err.Error())
	}
	return err
}

func (l *local) omits() bool { return false } // there is nothing to save on the same disk

func (l *local) advertise(context.Context) (advertised, error) {
	iter, err := l.storage.IterReferences()
	if err != nil {
		return advertised{}, err
	}
	all := advertised{refs: map[string]plumbing.Hash{}}
	err = iter.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference {
			all.refs[ref.Name().String()] = ref.Hash()
		}
		return nil
	})
	if errors.Is(err, dotgit.ErrPackedRefsBadFormat) {
		err = fmt.Errorf("read packed-refs: %w", err)
	}
	return all, err
}

// object reads an object from a pack or, if it is in none, from a file of its
// own or an alternate.
func (l *local) object(id plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	kind, data, err := l.packs.object(id, limit)
	if !errors.Is(err, ErrMissing) {
		return kind, data, notOurs(err)
	}
	o, err := l.storage.EncodedObject(plumbing.AnyObject, id)
	if err != nil {
		return 0, nil, err
	}
	if o.Size() > limit {
		return 0, nil, fmt.Errorf("%w: an object has %d bytes, the limit is %d", ErrTooLarge, o.Size(), limit)
	}
	r, err := o.Reader()
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	data, err = io.ReadAll(io.LimitReader(r, limit+1))
	return o.Type(), data, err
}

// stage copies packs that consist mostly of what is missing, as a first fetch
// finds them, and writes the rest anew.
func (l *local) stage(ctx context.Context, m *Mirror, req request) (parts []*staged, err error) {
	ids, err := l.missing(ctx, m, req.wants)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	defer func() {
		if err != nil {
			discardAll(parts)
			parts = nil
		}
	}()
	rest, copied, err := l.divide(ids)
	if err != nil {
		return nil, err
	}
	for _, p := range copied {
		s, err := m.stage(ctx, io.NewSectionReader(p.file, 0, p.size), true)
		if err != nil {
			return parts, notOurs(err)
		}
		// What else is in the pack may be without its surroundings.
		s.links = newLinks(false)
		parts = append(parts, s)
	}
	if len(rest) == 0 {
		return parts, nil
	}
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(l.write(ctx, w, rest, m.limits.Object)) }()
	s, err := m.stage(ctx, r, false)
	if err != nil {
		return parts, notOurs(err)
	}
	return append(parts, s), nil
}

// divide picks the packs to copy and returns the objects that are in none of
// them.
func (l *local) divide(ids []plumbing.Hash) (rest []plumbing.Hash, copied []*pack, err error) {
	const worthCopying = 200
	in := map[*pack][]plumbing.Hash{}
	for _, id := range ids {
		p, _, err := l.packs.locate(id)
		if err != nil {
			return nil, nil, notOurs(err)
		}
		if p == nil {
			rest = append(rest, id)
			continue
		}
		in[p] = append(in[p], id)
	}
	for p, ids := range in {
		if len(ids) > worthCopying && len(ids) > p.index.count()*3/4 {
			copied = append(copied, p)
		} else {
			rest = append(rest, ids...)
		}
	}
	return rest, copied, nil
}

// write writes objects as a pack without deltas: finding them costs more than
// copying on the same disk.
func (l *local) write(ctx context.Context, w io.Writer, ids []plumbing.Hash, limit int64) error {
	pw := newPackWriter(w, l.packs, limit)
	if err := pw.begin(len(ids)); err != nil {
		return err
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		kind, data, err := l.object(id, limit)
		if err != nil {
			return fmt.Errorf("object %s: %w", short(id.String()), err)
		}
		if err := deflate(pw, kind, data); err != nil {
			return err
		}
	}
	_, err := pw.end()
	return err
}

// missing lists the objects that the wanted ones need and the mirror lacks.
// What is in the mirror is complete there.
func (l *local) missing(ctx context.Context, m *Mirror, wants []plumbing.Hash) ([]plumbing.Hash, error) {
	set := m.packs()
	var out []plumbing.Hash
	var total int64
	seen := map[plumbing.Hash]bool{}
	fresh := func(id plumbing.Hash) bool {
		if seen[id] {
			return false
		}
		seen[id] = true
		p, _, err := set.locate(id)
		return p == nil || err != nil
	}
	queue := append([]plumbing.Hash(nil), wants...)
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if !fresh(id) {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		kind, data, err := l.object(id, m.limits.Object)
		if err != nil {
			return nil, fmt.Errorf("object %s: %w", short(id.String()), err)
		}
		out = append(out, id)
		if total += int64(len(data)); total > m.limits.Objects {
			return nil, fmt.Errorf("%w: the objects to fetch are more than %d MiB", ErrTooLarge, m.limits.Objects>>20)
		}
		links := newLinks(false)
		if err := links.add(kind, data); err != nil {
			return nil, err
		}
		for id := range links.nodes {
			if !seen[id] {
				queue = append(queue, id)
			}
		}
		for id := range links.files {
			if fresh(id) {
				out = append(out, id)
			}
		}
	}
	return out, nil
}

func (l *local) close() { l.storage.Close() }
