package build

import (
	"sync"
	"time"

	"sigs.k8s.io/kustomize/kyaml/openapi"
)

// schemaIdle is how long kustomize's OpenAPI schema is kept after its last use.
// It takes megabytes and is needed seconds a day, but parsing it takes longer
// than a hundred builds, and builds come in bursts.
const schemaIdle = 5 * time.Second

// schema guards kustomize's OpenAPI schema, a package variable of kustomize
// that is not safe for concurrent use; it is the reason why one build of
// kustomize runs at a time.
var schema schemaKeeper

type schemaKeeper struct {
	running sync.Mutex

	mu    sync.Mutex
	users int
	idle  *time.Timer
}

// acquire begins a build.
func (s *schemaKeeper) acquire() {
	s.mu.Lock()
	s.users++
	if s.idle != nil {
		s.idle.Stop()
		s.idle = nil
	}
	s.mu.Unlock()
	s.running.Lock()
}

// release ends a build. One that brought a schema of its own must not leave it
// to the next.
func (s *schemaKeeper) release(own bool) {
	if own {
		openapi.ResetOpenAPI()
	}
	s.running.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		s.idle = time.AfterFunc(schemaIdle, s.forget)
	}
}

// forget gives the memory back.
func (s *schemaKeeper) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		openapi.ResetOpenAPI()
	}
}
