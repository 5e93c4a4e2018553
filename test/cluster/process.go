package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Process is a process of a node as the host sees it.
type Process struct {
	PID  int
	Args []string
}

// String is the command line, shortened.
func (p Process) String() string {
	text := strings.Join(p.Args, " ")
	if len(text) > 100 {
		text = text[:100]
	}
	return fmt.Sprintf("%d (%s)", p.PID, text)
}

// initPID is process 1 of the node as the host sees it, from the record that
// `bothy up` keeps.
func (n *Node) initPID() (int, error) {
	data, err := os.ReadFile(filepath.Join(n.State, "sandbox.json"))
	if err != nil {
		return 0, err
	}
	var record struct{ PID int }
	if err := json.Unmarshal(data, &record); err != nil {
		return 0, err
	}
	if record.PID == 0 {
		return 0, errors.New("the node is not running")
	}
	return record.PID, nil
}

// Path is where a path of the running node is found from outside.
func (n *Node) Path(inside string) (string, error) {
	pid, err := n.initPID()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root%s", pid, inside), nil
}

// Processes lists the node's own processes: those in its process namespace,
// which leaves out what runs in containers.
func (n *Node) Processes() ([]Process, error) {
	pid, err := n.initPID()
	if err != nil {
		return nil, err
	}
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, p := range allProcesses() {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.PID)); err == nil && ns == want {
			out = append(out, p)
		}
	}
	return out, nil
}

// Process finds `bothy VERB` of the node, such as "agent" or "kube".
func (n *Node) Process(verb string) (Process, error) {
	all, err := n.Processes()
	if err != nil {
		return Process{}, err
	}
	for _, p := range all {
		if len(p.Args) > 1 && filepath.Base(p.Args[0]) == "bothy" && p.Args[1] == verb {
			return p, nil
		}
	}
	return Process{}, fmt.Errorf("node %s has no process bothy %s", n.Name, verb)
}

// MustProcess is Process, ending the test if there is none.
func (n *Node) MustProcess(t testing.TB, verb string) Process {
	t.Helper()
	p, err := n.Process(verb)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// allProcesses lists the processes of this machine, without kernel threads.
func allProcesses() []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue
		}
		out = append(out, Process{PID: pid, Args: strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")})
	}
	return out
}
