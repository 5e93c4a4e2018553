package main

import (
	_ "embed"
	"fmt"
	"regexp"

	"sigs.k8s.io/yaml"
)

// reasonsFile says of specs that fail or are skipped what is behind it, found
// out by a human: the suite's own words seldom say.
//
//go:embed reasons.yaml
var reasonsFile []byte

// reason explains the specs whose text matches.
type reason struct {
	// Specs is a regular expression.
	Specs string `json:"specs"`
	// Cause is one of causes.
	Cause string `json:"cause"`
	// Why is a sentence for the reader of the document, with the evidence.
	Why string `json:"why"`

	match *regexp.Regexp
}

// causes are whose it is, as the document puts it.
var causes = map[string]string{
	"bothy": "a defect of bothy",
	"lacks": "bothy lacks the feature",
	"host":  "the kernel of the machine",
	"image": "the rebuilt image",
	"nodes": "needs more than one node",
	"suite": "the suite",
}

func loadReasons(data []byte) ([]reason, error) {
	var out []reason
	if err := yaml.UnmarshalStrict(data, &out); err != nil {
		return nil, fmt.Errorf("reasons.yaml: %w", err)
	}
	for i, r := range out {
		if causes[r.Cause] == "" || r.Why == "" {
			return nil, fmt.Errorf("reasons.yaml: entry %d (%s): it needs a known cause and a why", i+1, r.Specs)
		}
		match, err := regexp.Compile(r.Specs)
		if err != nil {
			return nil, fmt.Errorf("reasons.yaml: entry %d: %w", i+1, err)
		}
		out[i].match = match
	}
	return out, nil
}

// explain is the reason for a spec, as a cell of a table.
func explain(all []reason, text string, r result) string {
	for _, known := range all {
		if known.match.MatchString(text) {
			return causes[known.Cause] + ": " + known.Why
		}
	}
	if r.State == skipped {
		return "the suite: " + r.Message
	}
	return "not explained yet"
}
