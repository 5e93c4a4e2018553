package main

import (
	_ "embed"
	"errors"
	"fmt"
	"regexp"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

// reasonsFile says of specs that fail or are skipped what is behind it, found
// out by a human: the suite's own words seldom say.
//
//go:embed reasons.yaml
var reasonsFile []byte

// reason explains the specs whose text matches Specs and of which the suite says what matches
// Says; both are regular expressions, and either may be missing.
type reason struct {
	Specs string `json:"specs,omitempty"`
	Says  string `json:"says,omitempty"`
	// Cause is one of causes.
	Cause string `json:"cause"`
	// Why is a sentence for the reader of the document, with the evidence.
	Why string `json:"why"`
	// Needs is one of needs: the specs are skipped where there is none. Otherwise they would
	// run into the suite's longest deadlines, to say the same in hours.
	Needs string `json:"needs,omitempty"`

	match, says *regexp.Regexp
}

// causes are whose it is, as the document puts it.
var causes = map[string]string{
	"bothy":  "a defect of bothy",
	"choice": "a decision of bothy",
	"lacks":  "bothy lacks the feature",
	"host":   "the machine",
	"image":  "the rebuilt image",
	"nodes":  "needs more nodes",
	"suite":  "the suite",
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
		if r.Needs != "" && needs[r.Needs] == nil {
			return nil, fmt.Errorf("reasons.yaml: entry %d (%s): nobody knows how to look for %q", i+1, r.Specs, r.Needs)
		}
		if r.Specs == "" && (r.Says == "" || r.Needs != "") {
			return nil, fmt.Errorf("reasons.yaml: entry %d: it does not say which specs", i+1)
		}
		var errs [2]error
		out[i].match, errs[0] = regexp.Compile(r.Specs)
		out[i].says, errs[1] = regexp.Compile(r.Says)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("reasons.yaml: entry %d: %w", i+1, err)
		}
	}
	return out, nil
}

// needs say whether there is what specs need, on this machine or in the product.
var needs = map[string]func() bool{
	"cloud":        func() bool { return false },
	"kube-proxy":   func() bool { return false },
	"SCTP sockets": haveSCTPSockets,
}

func haveSCTPSockets() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// hopeless is what a spec needs and there is not, or "".
func hopeless(all []reason, text string) string {
	for _, r := range all {
		if r.Needs != "" && r.match.MatchString(text) && !needs[r.Needs]() {
			return r.Needs
		}
	}
	return ""
}

// explain is the reason for a spec, as a cell of a table.
func explain(all []reason, text string, r result) string {
	for _, known := range all {
		if known.match.MatchString(text) && known.says.MatchString(r.Message) {
			return causes[known.Cause] + ": " + known.Why
		}
	}
	if r.State == skipped {
		return "the suite: " + r.Message
	}
	return "not explained yet"
}
