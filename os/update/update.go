package update

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/esp"
	"github.com/bothy-os/bothy/os/verity"
)

// The boot files on the EFI system partition.
const (
	// KnownFile is what the firmware starts without being told.
	KnownFile = "EFI/BOOT/BOOTX64.EFI"
	// NextFile is that of the generation on trial.
	NextFile = "EFI/BOTHY/NEXT.EFI"
)

// Dir is where an updater's things are, below a machine's state directory.
const Dir = "os/update"

// Device is an open partition.
type Device interface {
	esp.Disk
	io.Closer
	// Size in bytes.
	Size() int64
}

// Machine is the disk and the firmware.
type Machine interface {
	// ESP opens the EFI system partition, Slot the one that does not run.
	ESP() (Device, error)
	Slot() (Device, error)
	// Define tells the firmware about [NextFile], which is not started by that.
	Define() error
	// StartOnce has the firmware start [NextFile] at the next start of the machine and never
	// after it. Pending says that it is still to do so, Cancel takes it back.
	StartOnce() error
	Pending() (bool, error)
	Cancel() error
	// Keeps says that the firmware still knows what was to be started, whether it has been or
	// not.
	Keeps() (bool, error)
	// SecureBoot says that the firmware starts signed boot files only.
	SecureBoot() bool
}

// Config is what an [Updater] works with.
type Config struct {
	// Dir keeps what is remembered, and belongs to the updater.
	Dir string
	// CommandLine is the running kernel's.
	CommandLine string
	// Boot differs from one start of the machine to the next.
	Boot string
	// Version and Flavour are those of the running system.
	Version, Flavour string
	Machine          Machine
	Log              *slog.Logger

	// saving is asked before each change of the record; nil but in tests.
	saving func() error
}

// Standing is where a machine finds itself when it has started.
type Standing string

// The standings.
const (
	// Settled: no generation is on trial.
	Settled Standing = "settled"
	// OnTrial: the running one is.
	OnTrial Standing = "on-trial"
	// Returned: the one that was on trial has ended, and the old one runs again. What the
	// trial has changed can be put back; then comes [Updater.Settle].
	Returned Standing = "returned"
)

// Updater takes the machine from one generation to another.
type Updater struct {
	cfg     Config
	running []string

	mu       sync.Mutex
	record   *record
	standing Standing
	changed  chan struct{}
}

// Open reads what is remembered and finds out how the machine stands. What a loss of power
// has cut off before anything was activated is forgotten.
func Open(cfg Config) (*Updater, error) {
	r, err := loadRecord(cfg.Dir)
	if err != nil {
		return nil, err
	}
	u := &Updater{cfg: cfg, running: strings.Fields(cfg.CommandLine), record: r, standing: Settled, changed: make(chan struct{})}
	return u, u.resume()
}

func (u *Updater) resume() error {
	r := u.record
	switch t := r.Trial; {
	case r.onTrial(u.running):
		u.standing = OnTrial
		known, err := u.isKnown(t.BootFile)
		if err == nil && known {
			// Cut off between the moment that counts and the note about it.
			return u.adopt()
		}
		return err
	case t != nil && t.Phase == Armed && t.ArmedIn == u.cfg.Boot:
		// The agent has ended, and the machine was not started again.
		if err := u.cfg.Machine.Cancel(); err != nil {
			return err
		}
	case t != nil && (t.Phase == Armed || t.Phase == Started):
		u.standing = Returned
		return nil
	case t == nil && r.Current.matches(u.running) >= 0:
		return nil
	case r.Current.matches(u.running) < 0:
		// The first start, or the disk was written from outside.
		r.Current, r.Since = u.installed(), time.Now().UTC()
	}
	r.Trial = nil
	return errors.Join(u.dropSnapshot(), u.save())
}

// installed describes the running system from what the firmware starts; if that is another,
// or cannot be read, from what the kernel was told.
func (u *Updater) installed() Generation {
	g := Generation{Version: u.cfg.Version, CommandLine: u.running}
	err := u.withESP(func(v *esp.Volume) error {
		data, err := v.ReadFile(KnownFile)
		if err != nil {
			return err
		}
		b, err := parseBootFile(data)
		if err != nil {
			return err
		}
		if known := (Generation{Version: u.cfg.Version, CommandLine: b.commandLine, BootFile: b.sum}); known.matches(u.running) >= 0 {
			g = known
		}
		return nil
	})
	if err != nil {
		u.cfg.Log.Warn("the boot file of this system is not known", "err", err)
	}
	return g
}

// save writes the record and says that the status has changed.
func (u *Updater) save() error {
	close(u.changed)
	u.changed = make(chan struct{})
	if u.cfg.saving != nil {
		if err := u.cfg.saving(); err != nil {
			return err
		}
	}
	return u.record.save(u.cfg.Dir)
}

// Status is what an operator wants to know.
type Status struct {
	Standing Standing `json:"standing"`
	// Current is the generation that is known to work, Since when.
	Current Generation `json:"current"`
	Since   time.Time  `json:"since"`
	Trial   *Trial     `json:"trial,omitempty"`
	Bad     []Bad      `json:"bad,omitempty"`
}

// Status returns how the machine stands, and a channel that is closed when that changes.
func (u *Updater) Status() (Status, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	st := Status{Standing: u.standing, Current: u.record.Current, Since: u.record.Since, Bad: append([]Bad(nil), u.record.Bad...)}
	if t := u.record.Trial; t != nil {
		copied := *t
		st.Trial = &copied
	}
	return st, u.changed
}

// BadError says that an image was tried and did not work.
type BadError struct{ Bad Bad }

func (e *BadError) Error() string {
	return fmt.Sprintf("the image %s was tried with commit %.12s and is not started again: %s; build another one, and name its digest", e.Bad.Digest, e.Bad.Commit, e.Bad.Reason)
}

// Check says whether an image is to be started: not the one that runs, and with a [*BadError]
// not one that did not work.
func (u *Updater) Check(digest string) (wanted bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if b := u.record.bad(digest); b != nil {
		return false, &BadError{*b}
	}
	return u.record.Current.Digest != digest, nil
}

// Forgive forgets that an image did not work. It reports whether it was remembered.
func (u *Updater) Forgive(digest string) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.record.bad(digest)
	if b == nil {
		return false, nil
	}
	kept := u.record.Bad[:0:0]
	for _, one := range u.record.Bad {
		if one.Digest != digest {
			kept = append(kept, one)
		}
	}
	u.record.Bad = kept
	return true, u.save()
}

// Image is an operating system whose content the caller has verified.
type Image struct {
	// Reference is what the commit calls it, Digest what that stands for.
	Reference, Digest string
	Commit            string
	BootFile          []byte
	// Root is the root file system with its hash tree, of so many bytes.
	Root     io.ReaderAt
	RootSize int64
}

// ErrRuns says that an image is the system that runs already.
var ErrRuns = errors.New("the image is what runs already")

// chunk is how much is written to a slot at once.
const chunk = 1 << 20

// Stage writes an image beside the running system. Nothing refers to it afterwards, whatever
// happens. An image that cannot work here is an error, and nothing was written.
func (u *Updater) Stage(ctx context.Context, img Image) error {
	b, err := parseBootFile(img.BootFile)
	if err != nil {
		return fmt.Errorf("the boot file of image %s: %w", img.Reference, err)
	}
	next := Generation{Digest: img.Digest, Version: b.release["VERSION_ID"], CommandLine: b.commandLine, BootFile: b.sum}
	hash, blocks, err := u.fits(img, b, &next)
	if err != nil {
		return fmt.Errorf("image %s: %w", img.Reference, err)
	}
	if err := u.begin(img, next); err != nil {
		return err
	}
	if err := u.write(ctx, img, hash, blocks); err != nil {
		return errors.Join(fmt.Errorf("write image %s: %w", img.Reference, err), u.Abandon())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.record.Trial.Phase = Written
	return u.save()
}

// fits says whether an image is one for this machine.
func (u *Updater) fits(img Image, b *bootFile, next *Generation) (verity.Hash, uint64, error) {
	hash, blocks, err := next.root()
	if err != nil {
		return hash, 0, err
	}
	if flavour := b.release["VARIANT_ID"]; flavour != u.cfg.Flavour {
		return hash, 0, fmt.Errorf("it is of the flavour %q, this machine runs %q: name an image of that", flavour, u.cfg.Flavour)
	}
	if u.cfg.Machine.SecureBoot() && !b.signed {
		return hash, 0, errors.New("its boot file is not signed, and Secure Boot is on: build the image with --secure-boot-key")
	}
	u.mu.Lock()
	same := slices.Equal(next.CommandLine, u.record.Current.CommandLine)
	u.mu.Unlock()
	if same {
		return hash, 0, ErrRuns
	}
	if _, err := verity.Find(img.Root, blocks, hash); err != nil {
		return hash, 0, fmt.Errorf("its root file system is not the one that its boot file names: %w", err)
	}
	slot, err := u.cfg.Machine.Slot()
	if err != nil {
		return hash, 0, err
	}
	defer slot.Close()
	if img.RootSize > slot.Size() {
		return hash, 0, fmt.Errorf("its root file system has %d MiB, the slot for it has %d MiB", img.RootSize>>20, slot.Size()>>20)
	}
	return hash, blocks, nil
}

// Adopt notes that an image is what runs already.
func (u *Updater) Adopt(digest string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.record.Current.Digest = digest
	return u.save()
}

func (u *Updater) begin(img Image, next Generation) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t := u.record.Trial; u.standing != Settled || t != nil && t.Phase == Armed {
		return fmt.Errorf("another image is on trial, or about to be: %s", t.Image)
	}
	u.record.Trial = &Trial{Generation: next, Image: img.Reference, Commit: img.Commit, Phase: Writing, Begun: time.Now().UTC()}
	return u.save()
}

func (u *Updater) write(ctx context.Context, img Image, hash verity.Hash, blocks uint64) error {
	if err := u.writeSlot(ctx, img, hash, blocks); err != nil {
		return err
	}
	return u.withESP(func(v *esp.Volume) error { return v.Replace(NextFile, img.BootFile) })
}

func (u *Updater) writeSlot(ctx context.Context, img Image, hash verity.Hash, blocks uint64) error {
	slot, err := u.cfg.Machine.Slot()
	if err != nil {
		return err
	}
	defer slot.Close()
	buffer := make([]byte, chunk)
	for at := int64(0); at < img.RootSize; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := buffer[:min(chunk, img.RootSize-at)]
		if _, err := img.Root.ReadAt(piece, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the root file system: %w", err)
		}
		if _, err := slot.WriteAt(piece, at); err != nil {
			return fmt.Errorf("write the root file system: %w", err)
		}
	}
	if err := slot.Sync(); err != nil {
		return fmt.Errorf("write the root file system: %w", err)
	}
	if forgetful, ok := slot.(interface{ Forget() }); ok {
		forgetful.Forget() // so that the disk is read, and not what was to be written
	}
	if err := verity.Check(ctx, slot, blocks, hash); err != nil {
		return fmt.Errorf("what the disk gives back is not what was written to it: %w", err)
	}
	return nil
}

// withESP opens the EFI system partition for a moment.
func (u *Updater) withESP(use func(*esp.Volume) error) (err error) {
	device, err := u.cfg.Machine.ESP()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	v, err := esp.Open(device)
	if err != nil {
		return err
	}
	return use(v)
}

// Abandon forgets an image that was staged and not armed. Of one that the firmware is to start
// nothing is forgotten.
func (u *Updater) Abandon() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t := u.record.Trial; t == nil || u.standing != Settled || t.Phase != Writing && t.Phase != Written {
		return nil
	}
	u.record.Trial = nil
	return errors.Join(u.dropSnapshot(), u.save())
}

// Terms are what a generation is started under.
type Terms struct {
	// Limit is how long it may take from its start until it is healthy.
	Limit time.Duration
	// Baseline is kept for the comparison.
	Baseline any
}

// Arm has the firmware start the generation that was staged, once. The caller starts the
// machine again after that. With an error nothing will be started.
func (u *Updater) Arm(terms Terms) error {
	baseline, err := json.Marshal(terms.Baseline)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.record.Trial
	if t == nil || t.Phase != Written || u.standing != Settled {
		return errors.New("no image was written that could be started")
	}
	// If the firmware does not know this any more afterwards, it keeps nothing.
	if err := u.cfg.Machine.Define(); err != nil {
		return fmt.Errorf("tell the firmware about the new system: %w", err)
	}
	// Counted before it is started.
	t.Phase, t.ArmedIn, t.Limit, t.Baseline, t.Attempt = Armed, u.cfg.Boot, terms.Limit, baseline, u.record.Attempts[t.Digest]+1
	if u.record.Attempts == nil {
		u.record.Attempts = map[string]int{}
	}
	u.record.Attempts[t.Digest] = t.Attempt
	if err := u.save(); err != nil {
		return err
	}
	if err := u.cfg.Machine.StartOnce(); err != nil {
		// It was not tried; what the firmware may have noted is taken back.
		t.Phase = Written
		if u.record.Attempts[t.Digest]--; u.record.Attempts[t.Digest] == 0 {
			delete(u.record.Attempts, t.Digest)
		}
		return errors.Join(fmt.Errorf("have the firmware start the new system once: %w", err), u.cfg.Machine.Cancel(), u.save())
	}
	return nil
}

// isKnown says whether a boot file is what the firmware starts without being told.
func (u *Updater) isKnown(sum string) (known bool, err error) {
	err = u.withESP(func(v *esp.Volume) error {
		got, err := sumOf(v, KnownFile)
		known = got == sum
		return err
	})
	return known, err
}

// Wrote notes, in the generation on trial, in what format it is about to change what is kept.
func (u *Updater) Wrote(format string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.standing != OnTrial || u.record.Trial.Wrote == format {
		return nil
	}
	u.record.Trial.Wrote = format
	return u.save()
}

// Commit makes the generation on trial the one that the firmware starts. It can be called
// again after an error.
func (u *Updater) Commit() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.standing != OnTrial {
		return errors.New("no system is on trial")
	}
	t := u.record.Trial
	err := u.withESP(func(v *esp.Volume) error {
		data, err := v.ReadFile(NextFile)
		if err != nil {
			return err
		}
		if b, err := parseBootFile(data); err != nil || b.sum != t.BootFile {
			return errors.Join(fmt.Errorf("%s is not what was written", NextFile), err)
		}
		return v.Replace(KnownFile, data)
	})
	if err != nil {
		return fmt.Errorf("make the new system the one that is started: %w", err)
	}
	return u.adopt()
}

// adopt notes what the EFI system partition says, and removes what is not needed any more.
func (u *Updater) adopt() error {
	t := u.record.Trial
	delete(u.record.Attempts, t.Digest)
	u.record.Current, u.record.Since, u.record.Trial = t.Generation, time.Now().UTC(), nil
	u.standing = Settled
	if err := u.save(); err != nil {
		return err
	}
	if err := errors.Join(u.withESP(func(v *esp.Volume) error { return v.Remove(NextFile) }), u.dropSnapshot()); err != nil {
		u.cfg.Log.Warn("something is left of the update", "err", err)
	}
	return nil
}

// GiveUp notes, in the generation on trial, why it does not work. The caller starts the
// machine again.
func (u *Updater) GiveUp(reason string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.standing != OnTrial {
		return errors.New("no system is on trial")
	}
	u.record.Trial.Failure = reason
	return u.save()
}

// Ending is how a trial went.
type Ending struct {
	Trial Trial
	// Reason is why it ended.
	Reason string
	// Again says that it may be started once more.
	Again bool
}

// Settle notes, in the old generation, that the trial is over, after what it has changed was
// put back.
func (u *Updater) Settle() (*Ending, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.standing != Returned {
		return nil, nil
	}
	t := u.record.Trial
	e := &Ending{Trial: *t, Reason: t.Failure}
	ignored, err := u.cfg.Machine.Pending()
	if err != nil {
		return nil, err
	}
	keeps, err := u.cfg.Machine.Keeps()
	switch {
	case err != nil:
		return nil, err
	case e.Reason != "":
	case t.Phase == Armed && !keeps:
		e.Reason = "the firmware has forgotten that it was to start it: it keeps no variables, and updates are not possible"
	case ignored:
		e.Reason = "the firmware was told to start it and has not done so: updates are not possible with this firmware"
	case t.Phase == Started:
		e.Reason = "it started, and ended without a word: it hung, or panicked, or the power was gone"
		e.Again = u.record.Attempts[t.Digest] < maxAttempts
	default:
		e.Reason = "it was started, and nothing was heard of it: it hung, or panicked, or the power was gone"
		e.Again = u.record.Attempts[t.Digest] < maxAttempts
	}
	if err := u.cfg.Machine.Cancel(); err != nil {
		return nil, err
	}
	if !e.Again {
		u.record.condemn(e.Reason, time.Now().UTC())
	}
	u.record.Trial, u.standing = nil, Settled
	if err := u.save(); err != nil {
		return nil, err
	}
	return e, u.dropSnapshot()
}

// SnapshotDir is where the caller puts what it may have to put back: between [Updater.Stage]
// and [Updater.Arm], and for no longer than the trial.
func (u *Updater) SnapshotDir() string { return filepath.Join(u.cfg.Dir, "snapshot") }

func (u *Updater) dropSnapshot() error {
	if _, err := os.Lstat(u.SnapshotDir()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(u.SnapshotDir()); err != nil {
		return fmt.Errorf("remove what was kept for the return: %w", err)
	}
	return durable.SyncDir(u.cfg.Dir)
}
