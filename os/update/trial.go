package update

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/bothy-os/bothy/os/esp"
)

// Trials are process 1's part: it sees to it that a system on trial ends, whatever else of
// it works.
type Trials struct {
	dir     string
	running []string
	machine Machine
}

// NewTrials returns those of a machine that was started with a command line.
func NewTrials(dir, commandLine string, m Machine) *Trials {
	return &Trials{dir: dir, running: strings.Fields(commandLine), machine: m}
}

// Begin notes that the running system has started if it is on trial, and returns how long it
// may take; zero if it is not on trial. A record that cannot be read is an error: the
// machine then runs what it runs.
func (t *Trials) Begin() (time.Duration, error) {
	r, err := loadRecord(t.dir)
	if err != nil || !r.onTrial(t.running) {
		return 0, err
	}
	known, err := t.known(r.Trial.BootFile)
	if err != nil || known {
		return 0, err // the agent notes that
	}
	r.Trial.Phase = Started
	return r.Trial.Limit, r.save(t.dir)
}

// Expire is asked when the time is over. It reports whether the machine has to be started
// again, and notes why.
func (t *Trials) Expire(reason string) (bool, error) {
	r, err := loadRecord(t.dir)
	if err != nil || !r.onTrial(t.running) {
		return false, err
	}
	known, err := t.known(r.Trial.BootFile)
	if known {
		return false, err
	}
	if r.Trial.Failure == "" {
		r.Trial.Failure = reason
	}
	return true, errors.Join(err, r.save(t.dir))
}

func (t *Trials) known(sum string) (bool, error) {
	device, err := t.machine.ESP()
	if err != nil {
		return false, err
	}
	defer device.Close()
	v, err := esp.Open(device)
	if err != nil {
		return false, err
	}
	got, err := sumOf(v, KnownFile)
	return got == sum, err
}

// sumOf is the sha256 of a file; "" if it is not there.
func sumOf(v *esp.Volume, path string) (string, error) {
	data, err := v.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
