package tree

import (
	"sync"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// maxListed bounds the entries of directories that one FS keeps: some hundred
// KiB, which is enough for the directories of a site.
const maxListed = 4096

// listings keeps the directories that were read last, because every path is
// looked up from the root.
type listings struct {
	mu      sync.Mutex
	byID    map[string][]mirror.Entry
	entries int
}

// list returns the entries of a directory, which must not be changed.
func (f *FS) list(id string) ([]mirror.Entry, error) {
	f.listed.mu.Lock()
	entries, ok := f.listed.byID[id]
	f.listed.mu.Unlock()
	if ok {
		return entries, nil
	}
	entries, err := f.objects.Tree(id)
	if err != nil {
		return nil, err
	}
	f.listed.keep(id, entries)
	return entries, nil
}

func (l *listings) keep(id string, entries []mirror.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID == nil || l.entries+len(entries) > maxListed {
		l.byID, l.entries = map[string][]mirror.Entry{}, 0
	}
	if _, ok := l.byID[id]; ok {
		return
	}
	l.byID[id] = entries
	l.entries += len(entries)
}
