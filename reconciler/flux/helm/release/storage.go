package release

import (
	"errors"
	"fmt"
	"sync"

	releasei "helm.sh/helm/v4/pkg/release"
	helm "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// witness sees each release that was written to Helm's storage.
type witness func(*helm.Release)

// witnessed is a storage driver whose successful writes are seen. Helm may write
// from a goroutine that it left behind, so they are seen one at a time, and none
// any more once the action is over.
type witnessed struct {
	driver.Driver

	mu      sync.Mutex
	witness witness
	writes  int
}

// Create implements driver.Creator.
func (w *witnessed) Create(key string, r releasei.Releaser) error {
	return w.saw(r, w.Driver.Create(key, r))
}

// Update implements driver.Updator.
func (w *witnessed) Update(key string, r releasei.Releaser) error {
	return w.saw(r, w.Driver.Update(key, r))
}

// Delete implements driver.Deletor.
func (w *witnessed) Delete(key string) (releasei.Releaser, error) {
	r, err := w.Driver.Delete(key)
	return r, w.saw(r, err)
}

func (w *witnessed) saw(r releasei.Releaser, err error) error {
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	if stored, ok := r.(*helm.Release); ok && w.witness != nil {
		w.witness(stored)
	}
	return nil
}

// close ends what is seen, and returns how often was written.
func (w *witnessed) close() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.witness = nil
	return w.writes
}

// errNoRelease is in the chain of errors about releases that are not stored.
var errNoRelease = errors.New("no such release in storage")

// lastRelease returns the newest release of a name, or nil.
func lastRelease(s *storage.Storage, name string) (*helm.Release, error) {
	r, err := s.Last(name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read release %s from storage: %w", name, err)
	}
	return typed(r)
}

// releaseAt returns one release of a name. Its absence is errNoRelease.
func releaseAt(s *storage.Storage, name string, version int) (*helm.Release, error) {
	r, err := s.Get(name, version)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, fmt.Errorf("release %s.v%d: %w", name, version, errNoRelease)
	}
	if err != nil {
		return nil, fmt.Errorf("read release %s.v%d from storage: %w", name, version, err)
	}
	return typed(r)
}

func typed(r releasei.Releaser) (*helm.Release, error) {
	stored, ok := r.(*helm.Release)
	if !ok {
		return nil, fmt.Errorf("the release in storage has the unknown form %T", r)
	}
	return stored, nil
}
