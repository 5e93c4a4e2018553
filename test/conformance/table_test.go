package main

import (
	"strings"
	"testing"
)

func TestReasonsAreWellFormed(t *testing.T) {
	if _, err := loadReasons(reasonsFile); err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string]string{
		"known cause":   "- {specs: x, cause: moon, why: y}",
		"entry 1":       "- {specs: (, cause: host, why: y}",
		"unknown field": "- {spec: x, cause: host, why: y}",
		"which specs":   "- {cause: host, why: y}",
		"how to look":   "- {specs: x, cause: host, why: y, needs: luck}",
	} {
		if _, err := loadReasons([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", text, want, err)
		}
	}
}

// What a machine lacks is recorded as a skip with the reason, and the rest is run.
func TestSpecsThatNeedWhatTheMachineLacksAreSkipped(t *testing.T) {
	has := haveSCTPSockets()
	kept := &results{Specs: map[string]result{}, file: t.TempDir() + "/results.json"}
	sctp := spec{Text: "[sig-network] Services should function: sctp [Feature:SCTPConnectivity]"}
	rest, err := (&suite{version: "v1"}).leaveOut([]spec{someSpecs[0], sctp}, kept)
	if err != nil {
		t.Fatal(err)
	}
	r, recorded := kept.Specs[sctp.Text]
	if has && (len(rest) != 2 || recorded) {
		t.Errorf("this machine has SCTP sockets, but %d specs are left to run, and %+v is recorded", len(rest), r)
	}
	if !has && (len(rest) != 1 || r.State != skipped || !strings.Contains(r.Message, "no SCTP sockets")) {
		t.Errorf("%d specs are left to run, and %+v is recorded", len(rest), r)
	}
}

func TestDocumentNamesWhatFailedAndWhy(t *testing.T) {
	kept := &results{Specs: map[string]result{
		someSpecs[0].Text: {State: passed},
		someSpecs[1].Text: {State: failed, Message: "timed out"},
		someSpecs[6].Text: {State: skipped, Message: "Requires at least 2 nodes | not 1"},
	}}
	reasons, err := loadReasons([]byte("- {specs: DNS, says: of time, cause: suite, why: no}\n- {specs: DNS, says: timed, cause: host, why: no resolver}"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	g := grouped(someSpecs, kept)
	writeTotals(&b, g, kept)
	writeWhy(&b, "Failed", failed, g, kept, reasons)
	writeWhy(&b, "Skipped", skipped, g, kept, reasons)
	for _, want := range []string{
		"| conformance | api-machinery | 1 | 1 | 0 | 0 | 0 |",
		"| conformance | network | 1 | 0 | 0 | 1 | 0 |",
		"| conformance | scheduling | 1 | 0 | 0 | 0 | 1 |",
		"| network | network | 2 | 0 | 1 | 0 | 1 |",
		"| [sig-network] DNS should resolve | the machine: no resolver |",
		`| [sig-network] Services should serve [Conformance] | the suite: Requires at least 2 nodes \| not 1 |`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in:\n%s", want, b.String())
		}
	}
}

func TestResultsSurvive(t *testing.T) {
	file := t.TempDir() + "/results.json"
	kept, err := openResults(file)
	if err != nil {
		t.Fatal(err)
	}
	kept.Specs["a"] = result{State: failed, Message: "m", Bothy: "v1"}
	if err := kept.save(); err != nil {
		t.Fatal(err)
	}
	again, err := openResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if again.Specs["a"] != kept.Specs["a"] {
		t.Errorf("got %+v", again.Specs["a"])
	}
}

func TestSmokeNamesAreNotDoubled(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range smokeList() {
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
	}
}
