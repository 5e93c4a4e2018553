package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what one process has used so far, and holds now.
type usage struct {
	cpu      time.Duration
	rss, pss int64 // bytes
	written  int64 // bytes that reached the block layer
}

func usageOf(pid int) (usage, error) {
	var u usage
	memory, err := keyValues(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return u, err
	}
	u.rss, u.pss = memory["Rss"]<<10, memory["Pss"]<<10
	io, err := keyValues(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return u, err
	}
	u.written = io["write_bytes"] - io["cancelled_write_bytes"]
	u.cpu, err = cpuTime(pid)
	return u, err
}

// keyValues reads lines of "Key:   number ...".
func keyValues(path string) (map[string]int64, error) {
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

// cpuTime is user and system time, which the kernel counts in hundredths of a
// second on every architecture that Go runs on.
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
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}
