package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/sandbox"
)

// workersDir holds the state directories of the further nodes of a `bothy up --nodes N`.
const workersDir = "nodes"

// workerName is the i-th node's, counted from 0; the first has the name that was given.
func workerName(first string, i int) string {
	if i == 0 {
		return first
	}
	return fmt.Sprintf("%s-%d", first, i+1)
}

// workerState is where a further node keeps what it has.
func workerState(state, name string) string { return filepath.Join(state, workersDir, name) }

// workerStates lists the state directories of the further nodes, in the order of their numbers.
func workerStates(state string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(state, workersDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, workerState(state, e.Name()))
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b) // -10 comes after -9
		}
		return strings.Compare(a, b)
	})
	return out, nil
}

// choose turns --node into the state directory of that node.
func (o *options) choose() error {
	if o.node == "" {
		return nil
	}
	if first, err := sandbox.Open(o.state); err == nil && first.Name == o.node {
		return nil
	}
	states, err := workerStates(o.state)
	if err != nil {
		return err
	}
	var names []string
	for _, dir := range states {
		if filepath.Base(dir) == o.node {
			o.state = dir
			return nil
		}
		names = append(names, filepath.Base(dir))
	}
	return fmt.Errorf("there is no node %q in %s; beside the first there are %v", o.node, o.state, names)
}

// nodeLine is a further node as `bothy status` shows it.
type nodeLine struct {
	name   string
	status *agent.Status
	err    error
}

// workers asks all further nodes.
func (o *options) workers(ctx context.Context) ([]nodeLine, error) {
	states, err := workerStates(o.state)
	if err != nil {
		return nil, err
	}
	var out []nodeLine
	for _, dir := range states {
		line := nodeLine{name: filepath.Base(dir)}
		n, err := sandbox.Open(dir)
		switch {
		case err != nil:
			line.err = err
		case !n.Running():
			line.err = errors.New("is not running: `bothy up` starts it")
		default:
			line.status, line.err = agent.NewClient(n.Path(boot.AgentSocket)).Status(ctx)
		}
		out = append(out, line)
	}
	return out, nil
}

// printNodes is the table of all nodes below that of the first.
func printNodes(w io.Writer, s style, first *agent.Status, others []nodeLine) error {
	rows := [][]string{{"NODE", "ROLE", "ADDRESS", "STATE", "COMMIT"}}
	for _, line := range append([]nodeLine{{name: first.Node.Name, status: first}}, others...) {
		st := line.status
		if st == nil {
			rows = append(rows, []string{line.name, "-", "-", s.bad(firstLine(line.err.Error())), "-"})
			continue
		}
		state, commit := s.good("Ready"), "-"
		if !st.Node.Ready {
			state = s.bad("not Ready: " + firstLine(st.Node.Reason))
		}
		if st.Git.Accepted != nil {
			commit = short(st.Git.Accepted.Commit)
		}
		rows = append(rows, []string{line.name, st.Node.Role, st.Node.IP, state, commit})
	}
	fmt.Fprintln(w)
	return table(w, rows)
}

// statuses are those of nodes that could be asked.
func statuses(lines []nodeLine) []*agent.Status {
	var out []*agent.Status
	for _, l := range lines {
		if l.status != nil {
			out = append(out, l.status)
		}
	}
	return out
}
