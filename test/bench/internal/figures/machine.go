package figures

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/bothy-os/bothy/test/bench/internal/procfs"
)

// Commit is that of the source tree; it says so if there are changes.
func Commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// Machine describes the processor, memory, kernel and Go version.
func Machine() string {
	memory, err := procfs.KeyValues("/proc/meminfo")
	if err != nil {
		return "an unknown machine"
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "an unknown machine"
	}
	return fmt.Sprintf("%s, %d cores, %.0f GiB memory, Linux %s, %s", processor(), runtime.NumCPU(),
		float64(memory["MemTotal"])/(1<<20), strings.TrimSpace(string(release)), runtime.Version())
}

func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "an unknown processor"
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "an unknown processor"
}

// Load is the load average of the last minute.
func Load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}
