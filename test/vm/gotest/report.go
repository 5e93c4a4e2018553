package gotest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// event is one of those that `go doc test2json` describes.
type event struct {
	Action string
	Test   string
	Output string
}

// result is a top-level test with its subtests.
type result struct {
	name string
	// verdict is pass, fail or skip; empty if the test never ended.
	verdict string
	output  strings.Builder
}

// results are the tests of a package.
type results struct {
	order  []string
	byName map[string]*result
	// output belongs to no test.
	output strings.Builder
}

// convert makes sense of what a test program has printed, however it ended.
func convert(ctx context.Context, pkg, output string) (*results, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", pkg)
	cmd.Stdin = strings.NewReader(output)
	events, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool test2json: %w", err)
	}
	all := &results{byName: map[string]*result{}}
	decoder := json.NewDecoder(strings.NewReader(string(events)))
	for {
		var e event
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decode what test2json printed: %w", err)
		}
		all.add(e)
	}
}

func (all *results) add(e event) {
	if e.Test == "" {
		all.output.WriteString(e.Output)
		return
	}
	top, _, isSub := strings.Cut(e.Test, "/")
	r := all.byName[top]
	if r == nil {
		r = &result{name: top}
		all.byName[top] = r
		all.order = append(all.order, top)
	}
	r.output.WriteString(e.Output)
	if isSub {
		return
	}
	switch e.Action {
	case "pass", "fail", "skip":
		r.verdict = e.Action
	}
}

func (r *result) report(t *testing.T, maySkip *regexp.Regexp) {
	t.Run(r.name, func(t *testing.T) {
		switch {
		case r.verdict == "pass":
		case r.verdict == "fail":
			t.Errorf("%s", r.output.String())
		case r.verdict == "skip" && maySkip != nil && maySkip.MatchString(r.name):
			t.Skip(r.output.String())
		case r.verdict == "skip":
			t.Errorf("skipped, though the machine should have what it needs:\n%s", r.output.String())
		default:
			t.Errorf("it did not end:\n%s", r.output.String())
		}
	})
}
