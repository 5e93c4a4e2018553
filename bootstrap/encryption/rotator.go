package encryption

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// Store is what a rotation needs from the running API server and etcd.
type Store interface {
	// WaitLoaded returns when the API server uses the configuration with this
	// hash.
	WaitLoaded(ctx context.Context, hash string) error
	// Rewrite writes every Secret back unchanged, so that it is encrypted with
	// the current key, and returns how many there were.
	Rewrite(ctx context.Context) (int, error)
	// Outdated returns how many Secrets in etcd do not start with prefix.
	Outdated(ctx context.Context, prefix string) (int, error)
}

// Attempts to rewrite Secrets that appear or change meanwhile.
const rewriteAttempts = 5

// Rotator owns a key file and the configuration rendered from it.
type Rotator struct {
	ringFile, configFile string
	log                  *slog.Logger

	rotating sync.Mutex // one rotation at a time

	mu   sync.Mutex // guards ring
	ring *Ring
}

// Open loads or makes the ring (see [Load]) and renders the configuration, so
// that the API server can start.
func Open(ringFile, configFile string, fresh bool, now time.Time, log *slog.Logger) (*Rotator, error) {
	ring, err := Load(ringFile, fresh, now)
	if err != nil {
		return nil, err
	}
	r := &Rotator{ringFile: ringFile, configFile: configFile, log: log, ring: ring}
	_, err = r.render()
	return r, err
}

// State returns the step of a rotation and when the key in use was made.
func (r *Rotator) State() (Step, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring.Step, r.ring.Writer().Created
}

// Rotate replaces the key, or finishes the rotation under way.
func (r *Rotator) Rotate(ctx context.Context, store Store, now time.Time) error {
	r.rotating.Lock()
	defer r.rotating.Unlock()
	if step, _ := r.State(); step == Stable {
		key, err := newKey(now)
		if err != nil {
			return err
		}
		if err := r.advance(func(ring *Ring) { ring.Step, ring.Keys = Added, append(ring.Keys, key) }); err != nil {
			return err
		}
		r.log.Info("encryption key rotation started", "key", key.Name)
	}
	return r.finish(ctx, store)
}

// Resume finishes a rotation that a crash has cut short, if there is one.
func (r *Rotator) Resume(ctx context.Context, store Store) error {
	r.rotating.Lock()
	defer r.rotating.Unlock()
	if step, _ := r.State(); step == Stable {
		return nil
	}
	return r.finish(ctx, store)
}

func (r *Rotator) finish(ctx context.Context, store Store) error {
	for {
		hash, err := r.render()
		if err != nil {
			return err
		}
		if err := store.WaitLoaded(ctx, hash); err != nil {
			return fmt.Errorf("wait for the API server to load the encryption keys: %w", err)
		}
		step, _ := r.State()
		switch step {
		case Stable:
			return nil
		case Added:
			err = r.advance(func(ring *Ring) { ring.Step = Promoted })
		case Promoted:
			if err := r.rewrite(ctx, store); err != nil {
				return err
			}
			err = r.advance(func(ring *Ring) { ring.Step, ring.Keys = Stable, ring.Keys[1:] })
		}
		if err != nil {
			return err
		}
	}
}

// rewrite leaves no Secret that only the old key can read.
func (r *Rotator) rewrite(ctx context.Context, store Store) error {
	key := r.writer()
	for range rewriteAttempts {
		n, err := store.Rewrite(ctx)
		if err != nil {
			return fmt.Errorf("rewrite Secrets with encryption key %s: %w", key, err)
		}
		left, err := store.Outdated(ctx, Prefix(key))
		if err != nil {
			return fmt.Errorf("check that all Secrets use encryption key %s: %w", key, err)
		}
		if left == 0 {
			r.log.Info("secrets rewritten with the new encryption key", "key", key, "secrets", n)
			return nil
		}
	}
	return errors.New("some Secrets still need the old encryption key: both keys are kept, the rotation is tried again")
}

func (r *Rotator) writer() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring.Writer().Name
}

// advance changes the ring on disk first, then in memory.
func (r *Rotator) advance(change func(*Ring)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := Ring{Step: r.ring.Step, Keys: append([]Key(nil), r.ring.Keys...)}
	change(&next)
	if err := next.save(r.ringFile); err != nil {
		return err
	}
	r.ring = &next
	return nil
}

// render writes the configuration and returns its hash.
func (r *Rotator) render() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	config, err := r.ring.Config()
	if err != nil {
		return "", fmt.Errorf("encode encryption configuration: %w", err)
	}
	if _, err := durable.WriteFileIfChanged(r.configFile, config, 0o600); err != nil {
		return "", fmt.Errorf("write encryption configuration: %w", err)
	}
	return Hash(config), nil
}
