package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// specReport is what this program reads of ginkgo's JSON report of a spec.
type specReport struct {
	ContainerHierarchyTexts  []string
	ContainerHierarchyLabels [][]string
	LeafNodeType             string
	LeafNodeText             string
	LeafNodeLabels           []string
	State                    string
	StartTime                time.Time
	RunTime                  time.Duration
	Failure                  struct {
		Message  string
		Location struct {
			FileName   string
			LineNumber int
		}
	}
	CapturedGinkgoWriterOutput string
	CapturedStdOutErr          string
}

func (r specReport) text() string {
	return strings.Join(append(slices.Clone(r.ContainerHierarchyTexts), r.LeafNodeText), " ")
}

func (r specReport) labels() []string {
	all := slices.Concat(append(slices.Clone(r.ContainerHierarchyLabels), r.LeafNodeLabels)...)
	slices.Sort(all)
	return slices.Compact(all)
}

// result is false for specs that did not come to an end: not chosen, or cut
// short by an interruption.
func (r specReport) result() (result, bool) {
	out := result{Seconds: r.RunTime.Seconds(), At: r.StartTime}
	switch r.State {
	case "passed":
		out.State = passed
		return out, true
	case "failed", "panicked", "timedout":
		out.State = failed
	case "skipped":
		out.State = skipped
	default:
		return out, false
	}
	out.Message = strings.TrimSpace(r.Failure.Message)
	if l := r.Failure.Location; l.FileName != "" {
		out.Where = fmt.Sprintf("%s:%d", shortPath(l.FileName), l.LineNumber)
	}
	// Specs outside of the focus are "skipped" too, but without a word.
	return out, out.State == failed || out.Message != ""
}

// shortPath leaves out where the module is on this machine.
func shortPath(file string) string {
	if _, after, ok := strings.Cut(file, "/test/e2e/"); ok {
		return "test/e2e/" + after
	}
	return file
}

// readReport returns the specs of a report, and an error if the suite refused to
// start, because the cluster is not ready for instance.
func readReport(file string) ([]specReport, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var suites []struct{ SpecReports []specReport }
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("decode ginkgo's report %s: %w", file, err)
	}
	var out []specReport
	for _, s := range suites {
		for _, r := range s.SpecReports {
			if r.LeafNodeType == "It" {
				out = append(out, r)
				continue
			}
			if got, ok := r.result(); ok && got.State == failed && strings.Contains(r.LeafNodeType, "BeforeSuite") {
				return nil, fmt.Errorf("the suite did not start: %s", got.Message)
			}
		}
	}
	return out, nil
}
