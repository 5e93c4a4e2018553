package maps

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// tickBits: a tick is 2^30 ns, 1.07 s; see now() in bpf/src/tables.h.
const tickBits = 30

// Now is the programs' clock: ticks since boot.
func Now() (uint32, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0, fmt.Errorf("read monotonic clock: %w", err)
	}
	return uint32(ts.Nano() >> tickBits), nil
}

// Ticks converts a duration, rounding up.
func Ticks(d time.Duration) uint32 {
	return uint32((int64(d) + 1<<tickBits - 1) >> tickBits)
}

// Duration converts ticks.
func Duration(ticks uint32) time.Duration { return time.Duration(ticks) << tickBits }
