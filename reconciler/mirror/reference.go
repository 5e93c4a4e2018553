package mirror

import (
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/go-git/go-git/v5/plumbing"
)

// Reference says which commit of a repository is wanted. Of several fields the
// most exact one decides: Commit, Name, SemVer, Tag, Branch. The zero value is
// the branch master, as in the Flux API.
type Reference struct {
	Branch string
	Tag    string
	// SemVer is a range such as ">=1.0.0 <2.0.0"; the tag with the highest
	// version in it is taken.
	SemVer string
	// Name is a full name, such as refs/heads/main, refs/tags/v1 or
	// refs/pull/420/head.
	Name string
	// Commit is a full commit id. If Branch or Name is given as well, the commit
	// is looked for in their history; else the server must let single commits be
	// fetched.
	Commit string
}

func (r Reference) onlyBranch() bool { return r == Reference{Branch: r.Branch} && r.Branch != "" }

// String describes the reference for messages.
func (r Reference) String() string {
	switch {
	case r.Commit != "":
		return "commit " + r.Commit
	case r.Name != "":
		return "reference " + r.Name
	case r.SemVer != "":
		return "tag in the range " + r.SemVer
	case r.Tag != "":
		return "tag " + r.Tag
	}
	return fmt.Sprintf("branch %q", r.branch())
}

func (r Reference) branch() string {
	if r.Branch == "" {
		return "master"
	}
	return r.Branch
}

// advertised is what a repository says it has.
type advertised struct {
	refs map[string]plumbing.Hash
	// peeled are the objects that annotated tags point to, where known.
	peeled map[string]plumbing.Hash
}

// chosen is what a Reference turned out to be.
type chosen struct {
	name string        // "" for a single commit
	want plumbing.Hash // a commit or an annotated tag
}

// choose finds the reference among those advertised. found is false if the
// repository has none that fits.
func (r Reference) choose(a advertised) (c chosen, found bool, err error) {
	at := func(name string) (chosen, bool, error) {
		id, ok := a.refs[name]
		return chosen{name, id}, ok, nil
	}
	switch {
	case r.Commit != "":
		return r.chooseCommit(a)
	case r.Name != "":
		return at(r.Name)
	case r.SemVer != "":
		tag, err := highest(r.SemVer, a)
		if err != nil || tag == "" {
			return chosen{}, false, err
		}
		return at("refs/tags/" + tag)
	case r.Tag != "":
		return at("refs/tags/" + r.Tag)
	}
	return at("refs/heads/" + r.branch())
}

func (r Reference) chooseCommit(a advertised) (chosen, bool, error) {
	if !plumbing.IsHash(r.Commit) {
		return chosen{}, false, fmt.Errorf("%q is not a full commit id of 40 hexadecimal digits", r.Commit)
	}
	name := r.Name
	if name == "" && r.Branch != "" {
		name = "refs/heads/" + r.Branch
	}
	if name == "" {
		return chosen{want: plumbing.NewHash(r.Commit)}, true, nil
	}
	id, ok := a.refs[name]
	return chosen{name, id}, ok, nil
}

// highest returns the tag with the highest version in a range, "" if there is
// none. Of tags with equal versions the name that sorts last is taken, so that
// the choice does not depend on the order of a map.
func highest(text string, a advertised) (string, error) {
	within, err := semver.NewConstraint(text)
	if err != nil {
		return "", fmt.Errorf("version range %q: %w", text, err)
	}
	type candidate struct {
		tag     string
		version *semver.Version
	}
	var all []candidate
	for name := range a.refs {
		tag, ok := strings.CutPrefix(name, "refs/tags/")
		if !ok {
			continue
		}
		if v, err := semver.NewVersion(tag); err == nil && within.Check(v) {
			all = append(all, candidate{tag, v})
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	best := slices.MaxFunc(all, func(x, y candidate) int {
		if d := x.version.Compare(y.version); d != 0 {
			return d
		}
		return strings.Compare(x.tag, y.tag)
	})
	return best.tag, nil
}

// names lists branches and tags for messages.
func (a advertised) names() []string {
	var out []string
	for name := range a.refs {
		if branch, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			out = append(out, branch)
		} else if tag, ok := strings.CutPrefix(name, "refs/tags/"); ok {
			out = append(out, tag)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
