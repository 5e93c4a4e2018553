package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what one process has used so far, and holds now.
type usage struct {
	name     string
	pss, rss int64 // KiB
	anon     int64 // KiB
	cpu      time.Duration
	written  int64 // bytes that reached the block layer
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
		u, err := usageOf(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended while we looked
		}
		if err != nil {
			return snapshot{}, err
		}
		u.name = name
		out.processes[pid] = u
	}
	if len(out.processes) == 0 {
		return snapshot{}, fmt.Errorf("%s has no processes", s.name())
	}
	return out, nil
}

func usageOf(pid int) (usage, error) {
	var u usage
	memory, err := keyValues(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return u, err
	}
	u.pss, u.rss, u.anon = memory["Pss"], memory["Rss"], memory["Pss_Anon"]
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
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		key, value, ok := strings.Cut(scanner.Text(), ":")
		fields := strings.Fields(value)
		if !ok || len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
			out[key] = n
		}
	}
	return out, scanner.Err()
}

// ticksPerSecond is USER_HZ, which is 100 on every architecture Go runs on.
const ticksPerSecond = 100

func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(data)
	// Fields 14 and 15, counted from after the name, which is field 2.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("unexpected content of /proc/%d/stat", pid)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}
