// Package procfs reads what a process has used and holds from /proc.
//
// It must not know which processes matter to whom.
package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what one process has used so far, and holds now.
type Usage struct {
	CPU time.Duration
	// RSS and PSS are resident memory, PSS with shared pages divided among their users;
	// Anonymous is the part of PSS that no file backs. Bytes.
	RSS, PSS, Anonymous int64
	// Written is what reached the block layer, in bytes.
	Written int64
}

// UsageOf reads a process. The error is fs.ErrNotExist or ESRCH if it has ended.
func UsageOf(pid int) (Usage, error) {
	var u Usage
	memory, err := KeyValues(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return u, err
	}
	u.RSS, u.PSS, u.Anonymous = memory["Rss"]<<10, memory["Pss"]<<10, memory["Pss_Anon"]<<10
	io, err := KeyValues(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return u, err
	}
	u.Written = io["write_bytes"] - io["cancelled_write_bytes"]
	u.CPU, err = cpuTime(pid)
	return u, err
}

// KeyValues reads lines of "Key:   number ...".
func KeyValues(path string) (map[string]int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(string(line), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
			out[key] = n
		}
	}
	return out, nil
}

// tick is what /proc counts CPU time in: 1/100 s on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// cpuTime is user and system time.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	var user, system int64
	// Fields 14 and 15; what is in parentheses before them may hold blanks.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("unexpected content of /proc/%d/stat", pid)
	}
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("unexpected content of /proc/%d/stat: %w", pid, err)
	}
	return time.Duration(user+system) * tick, nil
}
