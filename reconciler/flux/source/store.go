package source

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"
)

// Key names a source object, such as GitRepository flux-system/flux-system.
type Key struct{ Kind, Namespace, Name string }

func (k Key) String() string { return k.Kind + "/" + k.Namespace + "/" + k.Name }

// BootKey is the source object under which the boot repository appears.
var BootKey = Key{Kind: "GitRepository", Namespace: "flux-system", Name: "flux-system"}

// Artifact is what a source delivered: the files of one revision. It does not
// change.
type Artifact struct {
	// Revision is what Flux shows, such as "main@sha1:<commit>",
	// "latest@sha256:<digest>" or a chart's version.
	Revision string
	// Digest is "<algorithm>:<hex>" over the content.
	Digest string
	// OriginRevision is the revision of the source that an OCI artifact was
	// made from; empty if it does not say.
	OriginRevision string
	// Metadata is what Flux puts into the artifact's metadata.
	Metadata map[string]string
	// Size of the content in bytes, where it is known.
	Size int64
	// Files are the content. Files of Git implement
	// interface{ ID(name string) (string, error) }, the object id of a path, so
	// that a build can tell without reading that nothing it reads has changed.
	Files fs.FS
	// At is when the revision was first delivered.
	At time.Time
	// AllowPrune reports whether a commit after the revision since, up to and
	// with this one, allows large deletions by the trailer of package apply. Nil
	// where the source has no commits.
	AllowPrune func(since string) bool
}

// Store holds the newest artifact of each source. It may be used by several
// goroutines.
type Store struct {
	mu          sync.Mutex
	artifacts   map[Key]*Artifact
	subscribers map[*subscriber]struct{}
}

// subscriber has an identity, which a function has not.
type subscriber struct{ tell func(Key) }

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{artifacts: map[Key]*Artifact{}, subscribers: map[*subscriber]struct{}{}}
}

// Get returns the newest artifact of a source, or nil.
func (s *Store) Get(k Key) *Artifact {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.artifacts[k]
}

// Set replaces the artifact of a source and tells the subscribers. Nil removes
// it.
func (s *Store) Set(k Key, a *Artifact) {
	s.mu.Lock()
	if a == nil {
		delete(s.artifacts, k)
	} else {
		s.artifacts[k] = a
	}
	subscribers := slices.Collect(maps.Keys(s.subscribers))
	s.mu.Unlock()
	for _, each := range subscribers {
		each.tell(k)
	}
}

// Subscribe calls tell after each change until ctx ends; a call that has begun by then
// ends after it. It must not block.
func (s *Store) Subscribe(ctx context.Context, tell func(Key)) {
	each := &subscriber{tell}
	s.mu.Lock()
	s.subscribers[each] = struct{}{}
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		delete(s.subscribers, each)
		s.mu.Unlock()
	})
}
