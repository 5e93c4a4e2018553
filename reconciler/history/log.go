package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"sync"

	"github.com/bothy-os/bothy/internal/durable"
)

const (
	// keep is how many commits survive when the file is made shorter, which
	// happens when it has more than trim of them.
	keep = 500
	trim = 1000
	// maxLine bounds what is read of one line.
	maxLine = 1 << 20
)

// Log is the history in a file. It may be used by several goroutines.
type Log struct {
	path string

	mu      sync.Mutex
	entries []*Entry // oldest first
}

// Open reads the history; a file that does not exist is an empty one.
func Open(path string) (*Log, error) {
	l := &Log{path: path}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l, nil
	case err != nil:
		return nil, fmt.Errorf("read the history of commits: %w", err)
	}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		var e Entry
		if json.Unmarshal(scanner.Bytes(), &e) == nil && e.Commit != "" {
			l.take(e)
		}
	}
	return l, nil
}

// take adds what one line says.
func (l *Log) take(e Entry) *Entry {
	if e.AcceptedAt.IsZero() {
		if known := l.find(e.Commit); known != nil {
			known.merge(e)
			return known
		}
	}
	l.entries = append(l.entries, &e)
	return &e
}

// find returns the newest entry of a commit.
func (l *Log) find(commit string) *Entry {
	for i := len(l.entries) - 1; i >= 0; i-- {
		if l.entries[i].Commit == commit {
			return l.entries[i]
		}
	}
	return nil
}

// Accepted adds a commit.
func (l *Log) Accepted(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(e)
	if len(l.entries) > trim {
		l.entries = append([]*Entry(nil), l.entries[len(l.entries)-keep:]...)
		return l.rewrite()
	}
	return l.append(e)
}

// Progress notes what became of a commit that was accepted. What does not
// change its entry is not written, and a commit whose acceptance is not known is
// ignored.
func (l *Log) Progress(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.find(e.Commit)
	if known == nil {
		return nil
	}
	next := *known
	next.merge(e)
	if reflect.DeepEqual(next, *known) {
		return nil
	}
	*known = next
	return l.append(Entry{Commit: e.Commit, AppliedAt: e.AppliedAt, EndedAt: e.EndedAt, Outcome: e.Outcome, Message: e.Message, Changes: e.Changes, Steps: e.Steps})
}

// Entries returns the newest n commits, newest first; n <= 0 means all.
func (l *Log) Entries(n int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n <= 0 || n > len(l.entries) {
		n = len(l.entries)
	}
	out := make([]Entry, 0, n)
	for i := range n {
		out = append(out, *l.entries[len(l.entries)-1-i])
	}
	return out
}

// append adds a line. It is not made durable at once: the history explains, and
// a line lost in a power cut costs nothing but the explanation.
func (l *Log) append(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode the history of commits: %w", err)
	}
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("extend the history of commits: %w", err)
	}
	// A line torn by a power cut must not swallow this one.
	if _, err := f.Write(append(append([]byte{'\n'}, line...), '\n')); err != nil {
		return errors.Join(fmt.Errorf("extend the history of commits: %w", err), f.Close())
	}
	return f.Close()
}

func (l *Log) rewrite() error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	for _, e := range l.entries {
		if err := encoder.Encode(e); err != nil {
			return fmt.Errorf("encode the history of commits: %w", err)
		}
	}
	if err := durable.WriteFile(l.path, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("shorten the history of commits: %w", err)
	}
	return nil
}
