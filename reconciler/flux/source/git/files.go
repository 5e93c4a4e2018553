package git

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/build/ignore"
	"github.com/bothy-os/bothy/reconciler/flux/source"
	"github.com/bothy-os/bothy/reconciler/tree"
)

// files shows the files of a commit as the object wants them: the directories of
// the sparse checkout only, with the files of other repositories, without the
// ignored ones.
func (a *attempt) files(commit *signers.Commit) (fs.FS, []*meta.Artifact, *problem) {
	var out fs.FS = tree.New(a.job.mirror, commit.Tree, commit.CommitTime)
	if dirs := a.obj.Spec.SparseCheckout; len(dirs) > 0 {
		out = newSparse(out, dirs)
	}
	mounts, included, p := a.mounts()
	if p != nil {
		return nil, nil, p
	}
	if len(mounts) > 0 {
		out = &overlay{base: out, mounts: mounts}
	}
	if a.obj.Spec.Ignore != nil {
		out = ignore.New(out, *a.obj.Spec.Ignore)
	}
	return out, included, nil
}

// mounts finds the artifacts of the repositories that are included.
func (a *attempt) mounts() ([]mount, []*meta.Artifact, *problem) {
	var mounts []mount
	var included []*meta.Artifact
	for i := range a.obj.Spec.Include {
		include := &a.obj.Spec.Include[i]
		key := a.includeKey(include)
		artifact := a.env.Store.Get(key)
		if artifact == nil {
			return nil, nil, &problem{reason: "NotFound", waiting: true, message: fmt.Sprintf("no artifact available for include '%s'", include.GitRepositoryRef.Name)}
		}
		from, to := inside(include.GetFromPath()), inside(include.GetToPath())
		if to == "." {
			return nil, nil, &problem{
				condition: sourcev1.FetchFailedCondition, reason: meta.InvalidPathReason, stalled: true,
				message: fmt.Sprintf("spec.include of '%s' has the repository's root as toPath; name a directory", include.GitRepositoryRef.Name),
			}
		}
		mounts = append(mounts, mount{at: to, files: artifact.Files, from: from})
		included = append(included, artifact.Status(key))
	}
	return mounts, included, nil
}

func (a *attempt) includeKey(include *sourcev1.GitRepositoryInclude) source.Key {
	return source.Key{Kind: sourcev1.GitRepositoryKind, Namespace: a.obj.Namespace, Name: include.GitRepositoryRef.Name}
}

// includedDigests identifies the artifacts that are included now.
func (a *attempt) includedDigests() []string {
	var out []string
	for i := range a.obj.Spec.Include {
		if artifact := a.env.Store.Get(a.includeKey(&a.obj.Spec.Include[i])); artifact != nil {
			out = append(out, artifact.Revision+" "+artifact.Digest)
		} else {
			out = append(out, "")
		}
	}
	return out
}

// inside makes a path relative to the root, whatever it says.
func inside(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name != "" {
		return name
	}
	return "."
}

// identified is implemented by files whose paths have object ids.
type identified interface {
	ID(name string) (string, error)
}

// idOf returns the object id of a path.
func idOf(files fs.FS, name string) (string, error) {
	if ids, ok := files.(identified); ok {
		return ids.ID(name)
	}
	return "", &fs.PathError{Op: "identify", Path: name, Err: errors.ErrUnsupported}
}

// sparse shows some directories of files and what leads to them.
type sparse struct {
	files fs.FS
	dirs  []string
}

func newSparse(files fs.FS, dirs []string) *sparse {
	s := &sparse{files: files}
	for _, dir := range dirs {
		s.dirs = append(s.dirs, inside(dir))
	}
	return s
}

// within reports whether a path is in one of the directories, and leads whether
// it is above one.
func (s *sparse) within(name string) bool {
	return slices.ContainsFunc(s.dirs, func(dir string) bool {
		return dir == "." || name == dir || strings.HasPrefix(name, dir+"/")
	})
}

func (s *sparse) leads(name string) bool {
	return slices.ContainsFunc(s.dirs, func(dir string) bool {
		return name == "." || strings.HasPrefix(dir, name+"/")
	})
}

// Open implements fs.FS.
func (s *sparse) Open(name string) (fs.File, error) {
	if !s.within(name) && !s.leads(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := s.files.Open(name)
	if err != nil || s.within(name) {
		return f, err
	}
	defer f.Close() //nolint:errcheck // a directory, of which nothing is read here
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	entries, err := s.ReadDir(name)
	if err != nil {
		return nil, err
	}
	return &openDir{info: info, entries: entries}, nil
}

// ReadDir implements fs.ReadDirFS.
func (s *sparse) ReadDir(name string) ([]fs.DirEntry, error) {
	if !s.within(name) && !s.leads(name) {
		return nil, &fs.PathError{Op: "read directory", Path: name, Err: fs.ErrNotExist}
	}
	entries, err := fs.ReadDir(s.files, name)
	if err != nil || s.within(name) {
		return entries, err
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e fs.DirEntry) bool {
		below := path.Join(name, e.Name())
		return !s.within(below) && !s.leads(below)
	}), nil
}

// ID returns the object id of a path. That of a directory that is shown in part
// is the whole directory's: it changes at least when the part does.
func (s *sparse) ID(name string) (string, error) {
	if !s.within(name) && !s.leads(name) {
		return "", &fs.PathError{Op: "identify", Path: name, Err: fs.ErrNotExist}
	}
	return idOf(s.files, name)
}

// mount is a directory of other files.
type mount struct {
	at    string
	files fs.FS
	from  string
}

// overlay shows the files of mounts in place of what the base has there.
type overlay struct {
	base   fs.FS
	mounts []mount
}

// find returns the files that a path belongs to and its name there.
func (o *overlay) find(name string) (fs.FS, string) {
	for i := len(o.mounts) - 1; i >= 0; i-- {
		m := o.mounts[i]
		if name == m.at {
			return m.files, m.from
		}
		if rest, ok := strings.CutPrefix(name, m.at+"/"); ok {
			return m.files, path.Join(m.from, rest)
		}
	}
	return o.base, name
}

func (o *overlay) isMount(name string) bool {
	return slices.ContainsFunc(o.mounts, func(m mount) bool { return m.at == name })
}

// below lists the names of directories in a directory that are or lead to
// mounts.
func (o *overlay) below(name string) []string {
	var out []string
	for _, m := range o.mounts {
		rest := m.at
		if name != "." {
			var ok bool
			if rest, ok = strings.CutPrefix(m.at, name+"/"); !ok {
				continue
			}
		}
		first, _, _ := strings.Cut(rest, "/")
		if !slices.Contains(out, first) {
			out = append(out, first)
		}
	}
	return out
}

// Open implements fs.FS.
func (o *overlay) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if len(o.below(name)) > 0 || o.isMount(name) {
		return o.openDir(name)
	}
	files, inner := o.find(name)
	f, err := files.Open(inner)
	if err != nil {
		return nil, rename(err, name)
	}
	return f, nil
}

// ReadDir implements fs.ReadDirFS.
func (o *overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "read directory", Path: name, Err: fs.ErrInvalid}
	}
	added := o.below(name)
	files, inner := o.find(name)
	entries, err := fs.ReadDir(files, inner)
	if err != nil && (len(added) == 0 || !errors.Is(err, fs.ErrNotExist)) {
		return nil, rename(err, name)
	}
	entries = slices.DeleteFunc(slices.Clone(entries), func(e fs.DirEntry) bool { return slices.Contains(added, e.Name()) })
	for _, dir := range added {
		entries = append(entries, directory(dir))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

func (o *overlay) openDir(name string) (fs.File, error) {
	entries, err := o.ReadDir(name)
	if err != nil {
		return nil, err
	}
	return &openDir{info: directory(path.Base(name)), entries: entries}, nil
}

// ID returns the object id of a path. A directory with mounts in it has one of
// its own, made of theirs and the base's.
func (o *overlay) ID(name string) (string, error) {
	added := o.below(name)
	files, inner := o.find(name)
	id, err := idOf(files, inner)
	if len(added) == 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", id)
	for _, dir := range added {
		id, err := o.ID(path.Join(name, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		fmt.Fprintf(sum, "%s %s\n", dir, id)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// rename makes an error speak of the name that was asked for.
func rename(err error, name string) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return &fs.PathError{Op: p.Op, Path: name, Err: p.Err}
	}
	return err
}
