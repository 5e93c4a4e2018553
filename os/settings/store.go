package settings

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
)

// Settings are what a machine is set to.
type Settings = v1alpha1.MachineSystemSpec

// Hash identifies settings. How long a trial may take is no part of them.
func Hash(s *Settings) string {
	plain := *s
	plain.RevertAfter = v1alpha1.Duration{}
	if len(plain.Sysctls) == 0 {
		plain.Sysctls = nil
	}
	data, err := json.Marshal(plain)
	if err != nil {
		panic(err) // plain data always encodes
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// InForce are the settings that count.
type InForce struct {
	Settings Settings `json:"settings"`
	// Commit that they came with, and since when; empty for those of a machine to which
	// no commit has said anything.
	Commit string     `json:"commit,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
}

// Trial are settings that have to prove themselves.
type Trial struct {
	Settings Settings `json:"settings"`
	Commit   string   `json:"commit"`
	// Needs are what has to work for them to be confirmed, in words of who proposed them.
	Needs []string  `json:"needs,omitempty"`
	Began time.Time `json:"began"`
	// Limit is how long they may take, in nanoseconds.
	Limit time.Duration `json:"limit"`
	// Applied says that all parts have taken them.
	Applied bool `json:"applied"`
	// Interruptions counts the restarts of the machine, or losses of power, during the trial.
	Interruptions int `json:"interruptions,omitempty"`
}

// Hash identifies the settings on trial.
func (t *Trial) Hash() string { return Hash(&t.Settings) }

// Undone are settings that did not prove themselves.
type Undone struct {
	Hash   string    `json:"hash"`
	Commit string    `json:"commit"`
	At     time.Time `json:"at"`
	// Reason is why, in a sentence.
	Reason string `json:"reason"`
}

// store is what is on disk.
type store struct{ dir string }

func (s store) inForceFile() string { return filepath.Join(s.dir, "in-force.json") }
func (s store) trialFile() string   { return filepath.Join(s.dir, "trial.json") }
func (s store) undoneFile() string  { return filepath.Join(s.dir, "undone.json") }

// load reads all three; those that there are not stay nil. A file that cannot be read is
// an error: to go on without it could lose the way to the machine.
func (s store) load() (inForce *InForce, trial *Trial, undone *Undone, err error) {
	inForce, trial, undone = &InForce{}, &Trial{}, &Undone{}
	if err = read(s.inForceFile(), inForce); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if err = read(s.trialFile(), trial); errors.Is(err, fs.ErrNotExist) {
		trial, err = nil, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if err = read(s.undoneFile(), undone); errors.Is(err, fs.ErrNotExist) {
		undone, err = nil, nil
	}
	return inForce, trial, undone, err
}

func read(file string, v any) error {
	if err := durable.ReadJSON(file, v); err != nil {
		return fmt.Errorf("read the machine's settings: %w", err)
	}
	return nil
}

func (s store) write(file string, v any) error {
	if err := durable.WriteJSON(file, v, 0o600); err != nil {
		return fmt.Errorf("keep the machine's settings: %w", err)
	}
	return nil
}

func (s store) remove(file string) error {
	if err := durable.Remove(file); err != nil {
		return fmt.Errorf("keep the machine's settings: %w", err)
	}
	return nil
}
