package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/sandbox"
)

const bootText = `apiVersion: bothy.dev/v1alpha1
kind: BootConfig
machineName: first
repository: {url: "https://git.example.org/site.git", path: clusters/x}
trust: {none: true}
endpoint: {tokens: [{name: ci, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}]}
`

// state is a state directory with a boot configuration and further nodes.
func state(t *testing.T, workers ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "boot.yaml"), []byte(bootText), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, w := range workers {
		if err := os.MkdirAll(workerState(dir, w), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNodesComeInTheirOrder(t *testing.T) {
	dir := state(t, "first-10", "first-2", "first-9")
	got, err := workerStates(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"first-2", "first-9", "first-10"} {
		if filepath.Base(got[i]) != want {
			t.Errorf("%v", got)
		}
	}
	if got, err := workerStates(t.TempDir()); err != nil || got != nil {
		t.Errorf("of a node that is alone: %v, %v", got, err)
	}
}

func TestOneOfSeveralNodesIsChosen(t *testing.T) {
	dir := state(t, "first-2")
	o := &options{state: dir, node: "first-2"}
	if err := o.choose(); err != nil || o.state != workerState(dir, "first-2") {
		t.Errorf("state %s, %v", o.state, err)
	}
	o = &options{state: dir}
	if err := o.choose(); err != nil || o.state != dir {
		t.Errorf("without a choice: state %s, %v", o.state, err)
	}
	o = &options{state: dir, node: "other"}
	if err := o.choose(); err == nil || !strings.Contains(err.Error(), "first-2") {
		t.Errorf("a node that is not there: %v", err)
	}
}

func TestFleet(t *testing.T) {
	for _, c := range []struct {
		nodes   int
		workers []string
		want    int    // specs; 0 for a node that is alone
		err     string // part of the error
	}{
		{0, nil, 0, ""},
		{1, nil, 0, ""},
		{3, nil, 3, ""},
		{0, []string{"first-2"}, 2, ""},
		{3, []string{"first-2"}, 3, ""},
		{2, []string{"first-2", "first-3"}, 0, "bothy down --node first-3 --purge"},
		{1, []string{"first-2"}, 0, "there are 2 nodes"},
		{-1, nil, 0, "from 1 to"},
		{sandbox.MaxSegment + 1, nil, 0, "from 1 to"},
	} {
		t.Run(fmt.Sprintf("%d with %d", c.nodes, len(c.workers)), func(t *testing.T) {
			f := &upFlags{nodes: c.nodes}
			fl, err := f.fleet(&sandbox.Spec{Name: "first", StateDir: state(t, c.workers...)})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || (fl == nil) != (c.want == 0) || fl != nil && len(fl.specs) != c.want {
				t.Errorf("%+v, %v", fl, err)
			}
		})
	}
}

// A worker follows the first node's repository, waits for its enrolment, and cannot be pushed to.
func TestWorkersOfAFleet(t *testing.T) {
	f := &upFlags{nodes: 2}
	first := &sandbox.Spec{Name: "first", StateDir: state(t), BinDir: "/bin", ImageLayouts: []string{"/images"}, Isolated: true}
	fl, err := f.fleet(first)
	if err != nil {
		t.Fatal(err)
	}
	w := fl.specs[1]
	if w.Name != "first-2" || w.StateDir != workerState(first.StateDir, "first-2") || w.Index != 1 || !w.Isolated || w.ImageLayouts[0] != "/images" || first.Name != "first" {
		t.Errorf("%+v", w)
	}
	config, err := v1alpha1.DecodeBootConfig("boot.yaml", w.BootConfig)
	if err != nil {
		t.Fatal(err)
	}
	if config.MachineName != "first-2" || !config.RequireEnrolment || config.Endpoint != nil || config.Repository.Path != "clusters/x" || !config.Trust.None {
		t.Errorf("%+v", config)
	}
	if fl.first.MachineName != "first" || fl.first.Endpoint == nil {
		t.Errorf("the first node's configuration has changed: %+v", fl.first)
	}
}
