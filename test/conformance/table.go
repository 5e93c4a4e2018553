package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/internal/durable"
)

const documentHead = `# Upstream conformance

What the end-to-end suite of Kubernetes %s says of bothy. The suite is the upstream one, built from its module and not patched; it
runs against clusters of ` + "`bothy up --nodes`" + `. This page is written by ` + "`make conformance`" + ` from the results it keeps (` + "`build/e2e/results.json`" + `).

`

const documentUse = `
## Running it

    make conformance                              # all conformance specs that have no result yet, on two nodes
    make conformance SET=network                  # Services, DNS, EndpointSlices, ...: conformance or not
    make conformance SET=policy                   # NetworkPolicy
    make conformance SET=network NODES=3          # among them those that fewer nodes have skipped
    make conformance SET=network NODES=7          # and those that want three zones, of two workers each
    make conformance FOCUS='session affinity' AGAIN=1
    make conformance LIST=1                       # what would run, and the results there are
    make conformance-smoke                        # a few minutes of every part; belongs to make test
    make conformance-report                       # this page, from the results there are

It needs root. A run that is interrupted goes on where it stopped. ` + "`SKIP`, `SHARD` (such as `2/3`) and `PARALLEL`" + ` narrow a run down; ` + "`FOR=20m`" + ` ends it after that long; ` + "`RETRY=1`" + `
runs what failed again; ` + "`KEEP=1`" + ` leaves the node running. The suite's log of every failure is in ` + "`build/e2e/failures`" + `.

## Images

The suite's images are built from its own sources and from Debian packages, under their upstream names. They differ so:

`

// writeDocument makes docs/conformance.md from everything that has a result.
func writeDocument(d dirs, specs []spec, kept *results) error {
	reasons, err := loadReasons(reasonsFile)
	if err != nil {
		return err
	}
	changes, err := os.ReadFile(d.changes)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, documentHead, suiteVersion)
	writeVersions(&b, kept)
	groups := grouped(specs, kept)
	writeTotals(&b, groups, kept)
	writeWhy(&b, "Failed", failed, groups, kept, reasons)
	writeWhy(&b, "Skipped", skipped, groups, kept, reasons)
	b.WriteString(documentUse)
	b.Write(changes)
	return durable.WriteFile(filepath.Join(d.Root, "docs", "conformance.md"), b.Bytes(), 0o644)
}

// writeVersions says which builds the results are of: a run of hours that is
// resumed may span several.
func writeVersions(w io.Writer, kept *results) {
	count := map[string]int{}
	for _, r := range kept.Specs {
		count[fmt.Sprintf("%s; nodes: %d", r.Bothy, r.Nodes)]++
	}
	for _, v := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "- %d specs on %s\n", count[v], v)
	}
	fmt.Fprintln(w)
}

// suiteVersion is the release the suite is of; tools/e2e/go.mod pins it.
const suiteVersion = "v1.37.1"

// groups are rows of the document: specs by the set and the part they are of.
type groups map[groupKey][]spec

type groupKey struct{ set, sig string }

// grouped deals the specs of the document's sets out; one that belongs to two
// is counted once, in the first.
func grouped(specs []spec, kept *results) groups {
	out := groups{}
	for _, s := range specs {
		switch {
		case s.has("Conformance"):
			out.add("conformance", s)
		case isPolicy(s):
			out.add("policy", s)
		case isNetwork(s):
			out.add("network", s)
		default:
			if _, ok := kept.Specs[s.Text]; ok {
				out.add("other", s)
			}
		}
	}
	return out
}

func (g groups) add(set string, s spec) {
	key := groupKey{set, s.sig()}
	g[key] = append(g[key], s)
}

func (g groups) keys() []groupKey {
	return slices.SortedFunc(maps.Keys(g), func(a, b groupKey) int {
		if a.set != b.set {
			return strings.Compare(a.set, b.set)
		}
		return strings.Compare(a.sig, b.sig)
	})
}

func writeTotals(w io.Writer, g groups, kept *results) {
	fmt.Fprintln(w, "| set | part | specs | passed | failed | skipped | not run |")
	fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|")
	for _, key := range g.keys() {
		n := map[state]int{}
		for _, s := range g[key] {
			n[kept.Specs[s.Text].State]++
		}
		fmt.Fprintf(w, "| %s | %s | %d | %d | %d | %d | %d |\n", key.set, key.sig, len(g[key]), n[passed], n[failed], n[skipped], n[""])
	}
}

func writeWhy(w io.Writer, title string, want state, g groups, kept *results, reasons []reason) {
	fmt.Fprintf(w, "\n## %s\n\n", title)
	none := true
	for _, key := range g.keys() {
		for _, s := range g[key] {
			r := kept.Specs[s.Text]
			if r.State != want {
				continue
			}
			if none {
				fmt.Fprintln(w, "| spec | why |\n|---|---|")
				none = false
			}
			fmt.Fprintf(w, "| %s | %s |\n", cell(s.Text), cell(explain(reasons, s.Text, r)))
		}
	}
	if none {
		fmt.Fprintln(w, "None.")
	}
}

// cell keeps a text on one line and inside its column.
func cell(text string) string {
	return strings.NewReplacer("\n", " ", "|", "\\|", "<", "&lt;").Replace(text)
}
