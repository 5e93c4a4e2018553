package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/bothy-os/bothy/test/bench/internal/procfs"
)

// usage is what one process has used so far, and holds now.
type usage struct {
	procfs.Usage
	name string
}

// snapshot is all processes of a system at one moment.
type snapshot struct {
	at        time.Time
	processes map[int]usage
}

func sample(s system) (snapshot, error) {
	pids, err := s.pids()
	if err != nil {
		return snapshot{}, err
	}
	out := snapshot{at: time.Now(), processes: map[int]usage{}}
	for pid, name := range pids {
		u, err := procfs.UsageOf(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended while we looked
		}
		if err != nil {
			return snapshot{}, err
		}
		out.processes[pid] = usage{u, name}
	}
	if len(out.processes) == 0 {
		return snapshot{}, fmt.Errorf("%s has no processes", s.name())
	}
	return out, nil
}
