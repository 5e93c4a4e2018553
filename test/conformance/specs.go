package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
)

// spec is one spec of the suite.
type spec struct {
	// Text is its full name, by which ginkgo finds it.
	Text string
	// Labels are the suite's, such as Conformance, sig-network, Serial.
	Labels []string
}

func (s spec) has(label string) bool { return slices.Contains(s.Labels, label) }

// serial says that nothing may run beside the spec.
func (s spec) serial() bool { return s.has("Serial") }

// sig is the group of Kubernetes that owns the spec, without "sig-".
func (s spec) sig() string {
	for _, l := range s.Labels {
		if name, ok := strings.CutPrefix(l, "sig-"); ok {
			return name
		}
	}
	return "other"
}

// specs lists the suite. Asking it takes seconds, so the answer is kept until
// the suite is built again.
func (d dirs) specs(ctx context.Context) ([]spec, error) {
	built, err := os.Stat(d.suite)
	if err != nil {
		return nil, fmt.Errorf("%w: `make conformance` builds it", err)
	}
	if st, err := os.Stat(d.specsFile); err == nil && st.ModTime().After(built.ModTime()) {
		data, err := os.ReadFile(d.specsFile)
		if err != nil {
			return nil, err
		}
		var out []spec
		return out, json.Unmarshal(data, &out)
	}
	out, err := d.askSuite(ctx)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return out, os.WriteFile(d.specsFile, data, 0o644)
}

func (d dirs) askSuite(ctx context.Context) ([]spec, error) {
	dir, err := os.MkdirTemp("", "bothy-specs-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	report := dir + "/report.json"
	cmd := exec.CommandContext(ctx, d.suite, "--ginkgo.dry-run", "--ginkgo.json-report="+report, "--ginkgo.succinct", "--provider=skeleton")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // it leaves files there
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ask the suite for its specs: %w: %s", err, lastLines(output))
	}
	reports, err := readReport(report)
	if err != nil {
		return nil, err
	}
	var out []spec
	for _, r := range reports {
		out = append(out, spec{Text: r.text(), Labels: r.labels()})
	}
	slices.SortFunc(out, func(a, b spec) int { return strings.Compare(a.Text, b.Text) })
	return out, nil
}

func list(w io.Writer, chosen []spec, kept *results) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range chosen {
		r, ok := kept.Specs[s.Text]
		if !ok {
			r.State = "-"
		}
		fmt.Fprintf(tw, "%s\t%s\n", r.State, s.Text)
	}
	return tw.Flush()
}

func lastLines(output []byte) string {
	const most = 2000
	text := strings.TrimSpace(string(output))
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return text
}
