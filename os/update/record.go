package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// Phase is how far a generation on trial is.
type Phase string

// The phases.
const (
	// Writing: it is being written, and nothing refers to it.
	Writing Phase = "writing"
	// Written: it is whole and was read back; nothing refers to it.
	Written Phase = "written"
	// Armed: the firmware has been told to start it once, or is about to be.
	Armed Phase = "armed"
	// Started: its process 1 runs, or did.
	Started Phase = "started"
)

// Trial is a generation that is not known to work yet.
type Trial struct {
	Generation
	// Image is what the commit calls it.
	Image  string `json:"image"`
	Commit string `json:"commit"`
	Phase  Phase  `json:"phase"`
	// Attempt counts from 1 for the first time that it is started.
	Attempt int       `json:"attempt,omitempty"`
	Begun   time.Time `json:"begun"`
	// ArmedIn is the start of the machine in which the firmware was told.
	ArmedIn string `json:"armedIn,omitempty"`
	// Limit is how long it may take from its start until it is healthy, in nanoseconds.
	Limit time.Duration `json:"limit,omitempty"`
	// Baseline is what the caller notes about the machine before, to compare with after.
	Baseline json.RawMessage `json:"baseline,omitempty"`
	// Wrote says in what format it has changed what is kept; "" if it has not.
	Wrote string `json:"wrote,omitempty"`
	// Failure is why it gave up, in its own words.
	Failure string `json:"failure,omitempty"`
}

// Bad is a generation that did not work.
type Bad struct {
	Digest  string    `json:"digest"`
	Version string    `json:"version,omitempty"`
	Commit  string    `json:"commit"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

const (
	// maxBad bounds what is remembered; the oldest is forgotten.
	maxBad = 100
	// maxAttempts is how often one that ends without a word is started: a loss of power is
	// none of its faults, and looks the same as a panic.
	maxAttempts = 2
	recordFile  = "record.json"
)

// record is what is remembered, on the data partition.
type record struct {
	// Current is the generation that is known to work.
	Current Generation `json:"current"`
	// Since is when it was found to.
	Since time.Time `json:"since,omitzero"`
	Trial *Trial    `json:"trial,omitempty"`
	Bad   []Bad     `json:"bad,omitempty"`
	// Attempts counts those of digests that have ended without a word.
	Attempts map[string]int `json:"attempts,omitempty"`
}

func loadRecord(dir string) (*record, error) {
	r := &record{}
	err := durable.ReadJSON(filepath.Join(dir, recordFile), r)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("what is known about updates: %w; without the file the machine goes on with the system that runs, and forgets which images were bad", err)
	}
	return r, nil
}

func (r *record) save(dir string) error {
	if err := durable.WriteJSON(filepath.Join(dir, recordFile), r, 0o600); err != nil {
		return fmt.Errorf("note how far the update is: %w", err)
	}
	return nil
}

// onTrial says whether the running system is the one on trial.
func (r *record) onTrial(running []string) bool {
	t := r.Trial
	if t == nil || t.Phase == Writing {
		return false
	}
	n := t.matches(running)
	return n >= 0 && n > r.Current.matches(running)
}

func (r *record) bad(digest string) *Bad {
	i := slices.IndexFunc(r.Bad, func(b Bad) bool { return b.Digest == digest })
	if i < 0 {
		return nil
	}
	return &r.Bad[i]
}

// condemn remembers the generation on trial as one that does not work.
func (r *record) condemn(reason string, now time.Time) {
	t := r.Trial
	r.Bad = slices.DeleteFunc(r.Bad, func(b Bad) bool { return b.Digest == t.Digest })
	r.Bad = append(r.Bad, Bad{Digest: t.Digest, Version: t.Version, Commit: t.Commit, Reason: reason, At: now})
	if over := len(r.Bad) - maxBad; over > 0 {
		r.Bad = slices.Delete(r.Bad, 0, over)
	}
	delete(r.Attempts, t.Digest)
}
