package main

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// selection chooses specs: those of a set that match focus, do not match skip
// and belong to the shard.
type selection struct {
	set, focus, skip, shard string
}

// smokeSpecs are names, one per line: a few minutes of every part.
//
//go:embed smoke.txt
var smokeSpecs string

// sets are the named selections.
var sets = []struct {
	name string
	has  func(spec) bool
}{
	{"conformance", func(s spec) bool { return s.has("Conformance") }},
	{"network", isNetwork},
	{"policy", isPolicy},
	{"smoke", func(s spec) bool { return slices.Contains(smokeList(), s.Text) }},
	{"all", func(spec) bool { return true }},
}

func setNames() []string {
	var out []string
	for _, s := range sets {
		out = append(out, s.name)
	}
	return out
}

// isNetwork says that a spec is the network's and needs nothing that only a
// cloud, an add-on or a gate that is off by default has.
func isNetwork(s spec) bool {
	if !s.has("sig-network") || s.has("Disruptive") || s.has("Flaky") || s.has("Alpha") {
		return false
	}
	return !slices.ContainsFunc(s.Labels, func(l string) bool {
		return strings.HasPrefix(l, "Feature:") && !slices.Contains(networkFeatures, l)
	})
}

// isPolicy says that a spec is about NetworkPolicy: what it does to packets, or
// its API, which upstream does not label.
func isPolicy(s spec) bool {
	return s.has("Feature:NetworkPolicy") || s.has("sig-network") && strings.Contains(s.Text, "] Netpol API ")
}

// networkFeatures are optional features that bothy is to have. NetworkPolicy
// is a set of its own.
var networkFeatures = []string{"Feature:LoadBalancer", "Feature:IPv6DualStack", "Feature:SCTPConnectivity", "Feature:TopologyHints"}

func smokeList() []string {
	var out []string
	for line := range strings.Lines(smokeSpecs) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

func (o selection) from(specs []spec) ([]spec, error) {
	i := slices.IndexFunc(sets, func(s struct {
		name string
		has  func(spec) bool
	},
	) bool {
		return s.name == o.set
	})
	if i < 0 {
		return nil, fmt.Errorf("-set %q: choose one of %s", o.set, strings.Join(setNames(), ", "))
	}
	focus, err := regexp.Compile(o.focus)
	if err != nil {
		return nil, fmt.Errorf("-focus: %w", err)
	}
	skip, err := regexp.Compile(o.skip)
	if err != nil {
		return nil, fmt.Errorf("-skip: %w", err)
	}
	var part, of int
	if _, err := fmt.Sscanf(o.shard, "%d/%d", &part, &of); err != nil || part < 1 || part > of {
		return nil, fmt.Errorf("-shard %q: write PART/PARTS, such as 2/3", o.shard)
	}
	var out []spec
	for _, s := range specs {
		if sets[i].has(s) && focus.MatchString(s.Text) && (o.skip == "" || !skip.MatchString(s.Text)) {
			out = append(out, s)
		}
	}
	if o.set == "smoke" {
		if err := smokeExists(specs); err != nil {
			return nil, err
		}
	}
	return everyNth(out, part, of), nil
}

// smokeExists notices a name that a new release of the suite has changed.
func smokeExists(specs []spec) error {
	var missing []string
	for _, name := range smokeList() {
		if !slices.ContainsFunc(specs, func(s spec) bool { return s.Text == name }) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("smoke.txt names specs that the suite does not have:\n%s", strings.Join(missing, "\n"))
	}
	return nil
}

// everyNth deals the specs out like cards, so that shards are alike in length
// though the specs of one subject are neighbours.
func everyNth(specs []spec, part, of int) []spec {
	var out []spec
	for i := part - 1; i < len(specs); i += of {
		out = append(out, specs[i])
	}
	return out
}

// batch is what one run of ginkgo gets.
type batch struct {
	specs    []spec
	parallel int
}

// batches puts serial specs last, one at a time.
func batches(specs []spec, size, parallel int) []batch {
	var together, alone []spec
	for _, s := range specs {
		if s.serial() {
			alone = append(alone, s)
		} else {
			together = append(together, s)
		}
	}
	var out []batch
	for b := range slices.Chunk(together, size) {
		out = append(out, batch{b, min(parallel, len(b))})
	}
	for b := range slices.Chunk(alone, size) {
		out = append(out, batch{b, 1})
	}
	return out
}
