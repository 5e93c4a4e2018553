// Inspect prints what a machine has that `bothy up` adds to, one thing per line:
// mounts, directories, processes, cgroups, links, firewall tables, BPF programs.
// Two outputs are the same when nothing was left behind.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/google/nftables"

	"github.com/bothy-os/bothy/test/cluster"
)

func main() {
	var all []string
	for _, look := range []func() ([]string, error){snapshot, processes, cgroups, links, tables, programs} {
		found, err := look()
		if err != nil {
			fmt.Fprintln(os.Stderr, "inspect:", err)
			os.Exit(1)
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	for _, line := range all {
		fmt.Println(line)
	}
}

func snapshot() ([]string, error) {
	s, err := cluster.TakeSnapshot()
	var out []string
	for name := range s {
		out = append(out, name)
	}
	return out, err
}

// processes leaves out kernel threads, which have no command line, and itself.
func processes() ([]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	var out []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || len(data) == 0 || filepath.Base(filepath.Dir(f)) == fmt.Sprint(os.Getpid()) {
			continue
		}
		out = append(out, "process "+strings.TrimRight(strings.ReplaceAll(string(data), "\x00", " "), " "))
	}
	return out, err
}

func cgroups() ([]string, error) {
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			out = append(out, "cgroup "+path)
		}
		return err
	})
	return out, err
}

func links() ([]string, error) {
	all, err := net.Interfaces()
	var out []string
	for _, l := range all {
		out = append(out, "link "+l.Name)
	}
	return out, err
}

func tables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListTables()
	var out []string
	for _, t := range all {
		out = append(out, "firewall table "+t.Name)
	}
	return out, err
}

func programs() ([]string, error) {
	var out []string
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list BPF programs: %w", err)
		}
		id = next
		out = append(out, fmt.Sprintf("BPF program %d", id))
	}
}
