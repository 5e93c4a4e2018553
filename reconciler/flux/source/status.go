package source

import (
	"path"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is the artifact as the status of its source shows it. There is no
// server that the files could be downloaded from, but the API wants a path and a
// URL: both name the source and the revision.
func (a *Artifact) Status(k Key) *meta.Artifact {
	p := path.Join(strings.ToLower(k.Kind), k.Namespace, k.Name, fileName(a.Revision))
	out := &meta.Artifact{
		Path: p, URL: "bothy://" + p,
		Revision: a.Revision, Digest: a.Digest, Metadata: a.Metadata,
		LastUpdateTime: metav1.NewTime(a.At.UTC().Truncate(1e9)),
	}
	if a.Size > 0 {
		size := a.Size
		out.Size = &size
	}
	return out
}

// fileName makes the last part of a revision, "sha1:<commit>" or the whole, a
// name without separators.
func fileName(revision string) string {
	if _, digest, ok := strings.Cut(revision, "@"); ok {
		revision = digest
	}
	return strings.NewReplacer("/", "-", ":", "-").Replace(revision)
}
