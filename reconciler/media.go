package reconciler

import (
	"log/slog"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// media tells when a bundle may have appeared in a directory that exists. What
// it cannot see, polling finds.
type media struct {
	changed chan struct{}
	log     *slog.Logger

	once    sync.Once
	watcher *fsnotify.Watcher
	done    sync.WaitGroup
}

func openMedia(log *slog.Logger) *media {
	return &media{changed: make(chan struct{}, 1), log: log}
}

// follow watches the directories in which files that a bundle URL names can
// appear. Nothing runs before the first.
func (m *media) follow(address string) {
	m.once.Do(m.start)
	if m.watcher == nil {
		return
	}
	for _, dir := range mirror.BundleDirs(address) {
		if err := m.watcher.Add(dir); err != nil {
			m.log.Debug("watch for bundles", "directory", dir, "error", err)
		}
	}
}

func (m *media) start() {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		m.log.Debug("bundles are looked for at intervals only", "error", err)
		return
	}
	m.watcher = watcher
	m.done.Go(m.run)
}

// run passes on changes once they pause, so that a file is not read over and
// over while it is being copied.
func (m *media) run() {
	const pause = 100 * time.Millisecond
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case e, ok := <-m.watcher.Events:
			if !ok {
				return
			}
			if e.Op != fsnotify.Chmod {
				timer.Reset(pause)
			}
		case err, ok := <-m.watcher.Errors:
			if !ok {
				return
			}
			m.log.Debug("watch for bundles", "error", err)
		case <-timer.C:
			wake(m.changed)
		}
	}
}

func (m *media) close() {
	if m.watcher != nil {
		m.watcher.Close()
	}
	m.done.Wait()
}
