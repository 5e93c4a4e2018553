package encryption

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// Step is how far a rotation has come.
type Step string

// The steps of a rotation; see the package comment.
const (
	Stable   Step = "stable"
	Added    Step = "added"
	Promoted Step = "promoted"
)

const keySize = 32

// Key is one encryption key.
type Key struct {
	Name    string    `json:"name"`
	Secret  []byte    `json:"secret"`
	Created time.Time `json:"created"`
}

// Ring is the content of the key file.
type Ring struct {
	Step Step `json:"step"`
	// Keys holds the key in use and, during a rotation, the new key after it.
	Keys []Key `json:"keys"`
}

// Load reads the ring in file, or makes one with a fresh key when there is no
// file and fresh says that no Secret can have been stored yet.
func Load(file string, fresh bool, now time.Time) (*Ring, error) {
	var ring Ring
	err := durable.ReadJSON(file, &ring)
	if errors.Is(err, fs.ErrNotExist) && fresh {
		key, err := newKey(now)
		if err != nil {
			return nil, err
		}
		ring = Ring{Step: Stable, Keys: []Key{key}}
		return &ring, ring.save(file)
	}
	if err == nil {
		err = ring.check()
	}
	if err != nil {
		return nil, fmt.Errorf("encryption keys %s cannot be used: %w: restore the file from a backup; without it the Secrets in etcd cannot be read", file, err)
	}
	return &ring, nil
}

func (r *Ring) check() error {
	want := map[Step]int{Stable: 1, Added: 2, Promoted: 2}[r.Step]
	if want == 0 {
		return fmt.Errorf("unknown step %q", r.Step)
	}
	if len(r.Keys) != want {
		return fmt.Errorf("%d keys at step %q", len(r.Keys), r.Step)
	}
	for _, k := range r.Keys {
		if len(k.Secret) != keySize || k.Name == "" {
			return errors.New("a key is incomplete")
		}
	}
	return nil
}

func (r *Ring) save(file string) error {
	if err := durable.WriteJSON(file, r, 0o600); err != nil {
		return fmt.Errorf("store encryption keys: %w", err)
	}
	return nil
}

// Writer is the key that new Secrets are encrypted with.
func (r *Ring) Writer() Key {
	if r.Step == Promoted {
		return r.Keys[1]
	}
	return r.Keys[0]
}

func newKey(now time.Time) (Key, error) {
	var random [keySize + 4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return Key{}, fmt.Errorf("generate encryption key: %w", err)
	}
	// The random part keeps names apart when the clock stands still or jumps.
	name := fmt.Sprintf("k%s-%s", now.UTC().Format("20060102"), hex.EncodeToString(random[keySize:]))
	return Key{Name: name, Secret: random[:keySize], Created: now.UTC()}, nil
}

// Old reports whether a key is due for replacement. A key from further in the
// future than it may live was made by a clock that was wrong.
func Old(created, now time.Time, rotateEvery time.Duration) bool {
	age := now.Sub(created)
	return age >= rotateEvery || age < -rotateEvery
}
