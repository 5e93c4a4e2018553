package reconciler

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/flux/source"
	"github.com/bothy-os/bothy/reconciler/mirror"
	"github.com/bothy-os/bothy/reconciler/tree"
)

// File is a file of the repository.
type File struct {
	// Path is relative to the repository's root.
	Path string
	Data []byte
}

// Snapshot is one commit as far as a site needs it. It does not change.
type Snapshot struct {
	// Commit is the id, Subject and Author describe it, Time is the
	// committer's.
	Commit  string
	Subject string
	Author  string
	Time    time.Time
	// Signer is nil if the boot configuration trusts everybody.
	Signer *signers.Verified
	// AcceptedAt is when this machine accepted the commit; zero while it is
	// being validated.
	AcceptedAt time.Time
	// TrustRoot is the root in force; nil if the boot configuration trusts
	// everybody.
	TrustRoot *v1alpha1.TrustRoot

	// Path is the site's directory, such as clusters/default.
	Path string
	// Cluster is cluster.yaml; nil if the site has none and takes the defaults.
	Cluster *File
	// Machines are machines/*.yaml in the order of names.
	Machines []File

	// Files shows the whole repository at this commit. It is read from the
	// mirror on demand.
	Files fs.FS

	history commits

	// settings are the Cluster's, with defaults.
	settings v1alpha1.ClusterSpec
	// way is what happened to the commit on this machine; resumed says that it
	// was accepted in an earlier life; source is where it came from.
	way     way
	resumed bool
	source  string
}

// artifact is the commit as the Flux API's source.
func (s *Snapshot) artifact(revision string) *source.Artifact {
	return &source.Artifact{
		Revision: revision, Digest: "sha1:" + s.Commit, Files: s.Files, At: s.AcceptedAt,
		AllowPrune: func(since string) bool {
			_, commit, _ := strings.Cut(since, "@sha1:")
			return s.allowsPrune(commit)
		},
	}
}

// commits reads commit objects.
type commits interface {
	Object(t mirror.ObjectType, id string) ([]byte, error)
}

// loadSnapshot reads what a site needs from a commit. Files that cannot be part
// of a site are a refusal.
func loadSnapshot(objects *mirror.Mirror, id, sitePath string) (*Snapshot, error) {
	raw, err := objects.Object(mirror.CommitObject, id)
	if err != nil {
		return nil, err
	}
	c, err := signers.ParseCommit(raw)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{
		Commit: id, Subject: c.Subject(), Author: c.Author, Time: c.CommitTime, Path: sitePath,
		Files:   tree.New(objects, c.Tree, c.CommitTime),
		history: objects,
	}
	if err := s.readSite(); err != nil {
		return nil, siteRefusal(s, c, err)
	}
	s.settings = v1alpha1.NewCluster(path.Base(sitePath)).Spec
	if f := s.Cluster; f != nil {
		// What cannot be decoded is refused by the hall's validation, which knows
		// more about it.
		if c, err := v1alpha1.DecodeCluster(f.Path, f.Data); err == nil {
			s.settings = c.Spec
		}
	}
	return s, nil
}

func (s *Snapshot) readSite() error {
	for _, dir := range []string{"trust", s.Path} {
		if err := onlyPlainFiles(s.Files, dir); err != nil {
			return err
		}
	}
	if info, err := fs.Stat(s.Files, s.Path); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return &siteError{rule: acceptance.RuleCluster, problem: "has no directory " + s.Path, remedy: "create the site's directory, or correct repository.path in the boot configuration"}
	}
	name := path.Join(s.Path, "cluster.yaml")
	data, err := fs.ReadFile(s.Files, name)
	switch {
	case err == nil:
		s.Cluster = &File{Path: name, Data: data}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	entries, err := fs.ReadDir(s.Files, path.Join(s.Path, "machines"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ext := path.Ext(e.Name()); e.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		name := path.Join(s.Path, "machines", e.Name())
		data, err := fs.ReadFile(s.Files, name)
		if err != nil {
			return err
		}
		s.Machines = append(s.Machines, File{Path: name, Data: data})
	}
	return nil
}

// siteError is what makes the files of a commit unusable.
type siteError struct{ rule, problem, remedy string }

func (e *siteError) Error() string { return e.problem }

// onlyPlainFiles refuses links and submodules where the site's own files are;
// elsewhere they are harmless, because nothing follows them.
func onlyPlainFiles(fsys fs.FS, dir string) error {
	return fs.WalkDir(fsys, dir, func(name string, e fs.DirEntry, err error) error {
		switch {
		case name == dir && errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.Type()&fs.ModeSymlink != 0:
			return &siteError{rule: acceptance.RuleTree, problem: fmt.Sprintf("holds %s, which %v", name, tree.ErrSymlink), remedy: "replace the link by the file"}
		case e.Type()&fs.ModeIrregular != 0:
			return &siteError{rule: acceptance.RuleTree, problem: fmt.Sprintf("holds %s, which %v", name, tree.ErrSubmodule), remedy: "remove the submodule"}
		}
		return nil
	})
}

func siteRefusal(s *Snapshot, c *signers.Commit, err error) error {
	r := &acceptance.Refusal{Commit: s.Commit, Offender: s.Commit, Subject: s.Subject, Author: s.Author, At: time.Now()}
	var site *siteError
	switch {
	case errors.As(err, &site):
		r.Rule, r.Remedy = site.rule, site.remedy
	case errors.Is(err, mirror.ErrMalformedTree):
		r.Rule, r.Remedy = acceptance.RuleTree, "create the commit again with git"
	case errors.Is(err, mirror.ErrTooLarge):
		r.Rule, r.Remedy = acceptance.RuleSize, "make the file smaller"
	default:
		return err
	}
	r.Problem = acceptance.Describe(s.Commit, c) + " " + err.Error()
	return r
}

// maxTrailerWalk bounds how many commits are searched for a trailer.
const maxTrailerWalk = 1000

// allowsPrune reports whether a commit on the first-parent path from this one
// back to, but without, since carries the trailer that allows a large prune.
// All these commits were accepted.
func (s *Snapshot) allowsPrune(since string) bool {
	id := s.Commit
	for range maxTrailerWalk {
		if id == since {
			return false
		}
		raw, err := s.history.Object(mirror.CommitObject, id)
		if err != nil {
			return false
		}
		c, err := signers.ParseCommit(raw)
		if err != nil {
			return false
		}
		for _, value := range c.Trailer(apply.AllowPruneTrailer) {
			if strings.EqualFold(value, "true") {
				return true
			}
		}
		if since == "" || len(c.Parents) == 0 {
			return false
		}
		id = c.Parents[0]
	}
	return false
}
