package main

import (
	"slices"
	"strings"
	"testing"
)

var someSpecs = []spec{
	{"[sig-api-machinery] Watchers should work [Conformance]", []string{"Conformance", "sig-api-machinery"}},
	{"[sig-network] DNS should resolve", []string{"sig-network"}},
	{"[sig-network] KubeProxy should be removed", []string{"Disruptive", "sig-network"}},
	{"[sig-network] IPVS should work", []string{"Feature:IPVS", "sig-network"}},
	{"[sig-network] LoadBalancers should work", []string{"Feature:LoadBalancer", "sig-network"}},
	{"[sig-network] Netpol should deny", []string{"Feature:NetworkPolicy", "sig-network"}},
	{"[sig-network] Services should serve [Conformance]", []string{"Conformance", "sig-network"}},
	{"[sig-scheduling] Preemption should work [Conformance]", []string{"Conformance", "Serial", "sig-scheduling"}},
}

func chosen(t *testing.T, s selection) string {
	t.Helper()
	if s.shard == "" {
		s.shard = "1/1"
	}
	got, err := s.from(someSpecs)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, s := range got {
		words := strings.Fields(s.Text)
		texts = append(texts, words[1])
	}
	return strings.Join(texts, " ")
}

func TestSelection(t *testing.T) {
	for _, c := range []struct {
		selection
		want string
	}{
		{selection{set: "conformance"}, "Watchers Services Preemption"},
		{selection{set: "network"}, "DNS LoadBalancers Services"},
		{selection{set: "policy"}, "Netpol"},
		{selection{set: "all", focus: "should work"}, "Watchers IPVS LoadBalancers Preemption"},
		{selection{set: "all", focus: "should work", skip: "sig-network|Preemption"}, "Watchers"},
		{selection{set: "conformance", shard: "1/2"}, "Watchers Preemption"},
		{selection{set: "conformance", shard: "2/2"}, "Services"},
	} {
		if got := chosen(t, c.selection); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.selection, got, c.want)
		}
	}
}

func TestWrongSelectionIsExplained(t *testing.T) {
	for want, s := range map[string]selection{
		"choose one of": {set: "everything", shard: "1/1"},
		"-focus":        {set: "all", focus: "(", shard: "1/1"},
		"-skip":         {set: "all", skip: "(", shard: "1/1"},
		"write PART":    {set: "all", shard: "3/2"},
	} {
		if _, err := s.from(someSpecs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestSerialSpecsRunAlone(t *testing.T) {
	got := batches(someSpecs, 4, 3)
	var sizes []int
	for _, b := range got {
		sizes = append(sizes, len(b.specs), b.parallel)
	}
	if want := []int{4, 3, 3, 3, 1, 1}; !slices.Equal(sizes, want) {
		t.Fatalf("sizes and parallelism %v, want %v", sizes, want)
	}
	if last := got[len(got)-1].specs[0]; !last.serial() {
		t.Errorf("the last batch is %s", last.Text)
	}
}

func TestOnlySpecsWithoutAResultArePending(t *testing.T) {
	kept := &results{Specs: map[string]result{
		someSpecs[0].Text: {State: passed}, someSpecs[1].Text: {State: failed}, someSpecs[2].Text: {State: skipped, Nodes: 1},
	}}
	for _, c := range []struct {
		options
		want int
	}{{options{nodes: 1}, 5}, {options{nodes: 1, retry: true}, 6}, {options{nodes: 2}, 6}, {options{nodes: 1, again: true}, 8}} {
		if got := pending(someSpecs, kept, c.options); len(got) != c.want {
			t.Errorf("%+v: %d specs, want %d", c.options, len(got), c.want)
		}
	}
}
