package machine

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot"
)

const (
	// roomEvery is the time between two looks at the data partition.
	roomEvery = 15 * time.Second
	// The partition has little room below one part in fewParts of it, or below enough bytes on a large one.
	fewParts = 20
	enough   = 1 << 30
)

// watchRoom shows when the data partition has no room left, for as long as the machine runs.
func (s *screen) watchRoom(ctx context.Context) {
	for tick := time.NewTicker(roomEvery); ; {
		var fs unix.Statfs_t
		if err := unix.Statfs(boot.StateDir, &fs); err == nil {
			text := room(fs.Blocks*uint64(fs.Bsize), fs.Bavail*uint64(fs.Bsize))
			s.set(func(now *state) { now.disk = text })
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

// room says how full a partition is, in bytes, and nothing if it has room.
func room(size, free uint64) string {
	const mebibyte = 1 << 20
	if size == 0 || free >= min(size/fewParts, enough) {
		return ""
	}
	how := "almost full"
	if free < mebibyte {
		how = "full"
	}
	return fmt.Sprintf("%s: %d of %d MiB are free; a commit that takes away what fills it is still applied", how, free/mebibyte, size/mebibyte)
}
