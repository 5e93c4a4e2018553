package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// memo remembers over restarts what was sent of each object and by which mark
// the object was known then. An object in the cluster that still has that mark
// is as it was sent, so that a process that starts again need not send it again.
// It is a cache: without it, or with an old one, objects are sent once more,
// which changes nothing.
//
// A mark has the second in which the object was applied, and two applies within
// one second may have the same. So an apply is written down only when it is
// older than that: whatever is sent later has another mark.
type memo struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	entries map[memoKey]memoEntry
	recent  map[memoKey]time.Time // since the last write
	changed bool
	timer   *time.Timer
}

// memoKey identifies an object of an inventory.
type memoKey [16]byte

type memoEntry struct {
	digest digest
	mark   uint64
}

const (
	memoMagic = "bothy applied 1\n"
	// memoQuiet is how long nothing must have been sent before it is written down.
	memoQuiet = 10 * time.Second
	// memoSettled is how old an apply must be to be written down.
	memoSettled = 2 * time.Second
	// memoMax bounds the file; what is beyond is sent again.
	memoMax = 100_000
)

// RememberIn makes the hub's engines remember in a file what they sent, so that
// after a restart only that is sent which is not known to be there. It is
// written when nothing was sent for some seconds, and when Run ends. Call it
// before Run.
func (h *Hub) RememberIn(file string) {
	m := &memo{path: file, log: h.log, entries: map[memoKey]memoEntry{}, recent: map[memoKey]time.Time{}}
	if err := m.load(); err != nil {
		h.log.Info("what was applied is not known; everything is applied again", "reason", err)
	}
	h.memo = m
}

// keyOf identifies an object of an engine with these labels.
func (o *object) keyOf(e *Options) memoKey {
	h := sha256.New()
	writeText(h, e.Name, e.Labels[fluxOwnerPrefix+"namespace"], e.Labels[fluxOwnerPrefix+"name"],
		o.id.Group, o.id.Kind, o.id.Namespace, o.id.Name)
	return memoKey(h.Sum(nil)[:16])
}

// set remembers what was just sent.
func (m *memo) set(key memoKey, e memoEntry) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recent[key] = time.Now()
	if m.entries[key] == e {
		return
	}
	m.entries[key] = e
	m.touch()
}

// forget drops an object.
func (m *memo) forget(key memoKey) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.entries[key]; ok {
		delete(m.entries, key)
		m.touch()
	}
}

// knows reports whether an object with this mark is as what has this digest.
func (m *memo) knows(key memoKey, e memoEntry) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.entries[key]
	return ok && known == e
}

// touch has the file written when it has been quiet for a while.
func (m *memo) touch() {
	m.changed = true
	if m.timer == nil {
		m.timer = time.AfterFunc(memoQuiet, m.save)
		return
	}
	m.timer.Reset(memoQuiet)
}

// save writes the file if anything changed.
func (m *memo) save() {
	if m == nil {
		return
	}
	m.mu.Lock()
	if !m.changed {
		m.mu.Unlock()
		return
	}
	text := m.encode()
	m.changed = false
	clear(m.recent)
	m.mu.Unlock()
	if err := durable.WriteFile(m.path, text, 0o600); err != nil {
		m.log.Warn("what was applied cannot be written down; it is applied again after a restart", "error", err)
	}
}

// close stops writing later, and writes now.
func (m *memo) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	if m.timer != nil {
		m.timer.Stop()
	}
	m.mu.Unlock()
	m.save()
}

// encode is the file's content: the magic, the entries, and a checksum.
func (m *memo) encode() []byte {
	out := bytes.NewBufferString(memoMagic)
	now := time.Now()
	for key, e := range m.entries {
		if sent, ok := m.recent[key]; ok && now.Sub(sent) < memoSettled {
			continue
		}
		out.Write(key[:])
		out.Write(e.digest[:])
		out.Write(binary.BigEndian.AppendUint64(nil, e.mark))
	}
	sum := sha256.Sum256(out.Bytes())
	out.Write(sum[:])
	return out.Bytes()
}

const memoEntrySize = len(memoKey{}) + len(digest{}) + 8

func (m *memo) load() error {
	text, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the first start
	}
	if err != nil {
		return err
	}
	end := len(text) - sha256.Size
	if end < len(memoMagic) || string(text[:len(memoMagic)]) != memoMagic {
		return fmt.Errorf("%s is of another version", m.path)
	}
	if sum := sha256.Sum256(text[:end]); !bytes.Equal(sum[:], text[end:]) {
		return fmt.Errorf("%s is damaged", m.path)
	}
	for rest := text[len(memoMagic):end]; len(rest) >= memoEntrySize && len(m.entries) < memoMax; rest = rest[memoEntrySize:] {
		var e memoEntry
		key := memoKey(rest[:16])
		e.digest = digest(rest[16:32])
		e.mark = binary.BigEndian.Uint64(rest[32:])
		m.entries[key] = e
	}
	return nil
}

// remember notes what was just sent; mu is held.
func (e *Engine) remember(o *object) {
	if e.o.Hub == nil || e.o.Hub.memo == nil {
		return
	}
	if len(o.ignored) > 0 || o.policy.ifNotPresent || o.known.usurped != 0 {
		e.o.Hub.memo.forget(o.keyOf(&e.o))
		return
	}
	e.o.Hub.memo.set(o.keyOf(&e.o), memoEntry{digest: o.digest, mark: o.known.mark})
}

// recall finds out whether an object that the hub sees is as this or an earlier
// process sent it; mu is held.
func (e *Engine) recall(o *object, s sighting) {
	if s.uid == "" || s.gone || s.going || s.left || s.usurped != 0 || o.policy.skip || e.o.Hub == nil {
		return
	}
	if !e.o.Hub.memo.knows(o.keyOf(&e.o), memoEntry{digest: o.digest, mark: s.mark}) {
		return
	}
	o.known, o.applied = s.known, o.digest
	o.health, o.moved = health{State: Current}, false
	if !e.trivial(o) {
		o.health, o.moved = health{State: Unknown, Message: "not looked at yet"}, true
	}
}

// disremember drops an object that left the set; mu is held.
func (e *Engine) disremember(o *object) {
	if e.o.Hub != nil {
		e.o.Hub.memo.forget(o.keyOf(&e.o))
	}
}
