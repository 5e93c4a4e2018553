package git

import (
	"regexp"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// revisionOf writes a revision as Flux does: "main@sha1:<commit>" of a branch,
// "v1.2.3@sha1:<commit>" of a tag, "refs/pull/1/head@sha1:<commit>" of another
// name, "sha1:<commit>" of a commit alone.
func revisionOf(ref *sourcev1.GitRepositoryRef, f mirror.Fetched) string {
	name := f.Ref
	if ref == nil || ref.Name == "" {
		name = strings.TrimPrefix(strings.TrimPrefix(name, "refs/heads/"), "refs/tags/")
	}
	if name == "" {
		return "sha1:" + f.Commit
	}
	return name + "@sha1:" + f.Commit
}

var revisionPattern = regexp.MustCompile(`(?:^|@)sha1:([0-9a-f]{40})$`)

// commitOf returns the commit of a revision, "" if it names none.
func commitOf(revision string) string {
	m := revisionPattern.FindStringSubmatch(revision)
	if m == nil {
		return ""
	}
	return m[1]
}

// lastFetched tells from a stored artifact what was fetched for it. A signed tag
// cannot be told from it, so that such an object waits for its repository.
func (a *attempt) lastFetched(stored *meta.Artifact) (mirror.Fetched, bool) {
	commit := commitOf(stored.Revision)
	v := a.obj.Spec.Verification
	if commit == "" || v != nil && v.VerifyTag() {
		return mirror.Fetched{}, false
	}
	name, _, ok := strings.Cut(stored.Revision, "@")
	if !ok {
		name = ""
	}
	return mirror.Fetched{Commit: commit, Ref: name}, true
}

// maxTrailerWalk bounds how many commits are searched for a trailer.
const maxTrailerWalk = 1000

// objects reads Git objects.
type objects interface {
	Object(t mirror.ObjectType, id string) ([]byte, error)
}

// allowPrune looks for the trailer on the first-parent path from commit back to,
// but without, the commit of a revision.
func allowPrune(from objects, commit string) func(since string) bool {
	return func(since string) bool {
		stop := commitOf(since)
		for id, n := commit, 0; id != stop && n < maxTrailerWalk; n++ {
			raw, err := from.Object(mirror.CommitObject, id)
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
			if stop == "" || len(c.Parents) == 0 {
				return false
			}
			id = c.Parents[0]
		}
		return false
	}
}
