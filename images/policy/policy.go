package policy

import (
	"regexp"

	"github.com/bothy-os/bothy/internal/cosign"
)

// Action is what happens to an image.
type Action string

// The actions.
const (
	Deny  Action = "deny"
	Warn  Action = "warn"
	Allow Action = "allow"
)

// Policy is the compiled policy of a site. It is safe for concurrent use.
type Policy struct {
	// Hash identifies the files that the policy was made of.
	Hash string
	// Rules are the ClusterImagePolicies in the order of the file.
	Rules []Rule
	// Denied are digests ("sha256:<hex>") that run under no name, with reasons.
	Denied map[string]string
	// NoMatch is what happens to an image that no rule is about.
	NoMatch Action
}

// Rule is one ClusterImagePolicy.
type Rule struct {
	Name string
	// WarnOnly lets images run that do not satisfy the rule, with a warning.
	WarnOnly    bool
	Authorities []Authority
	globs       []*regexp.Regexp
}

// Authority is one way to satisfy a rule.
type Authority struct {
	Name string
	// Static decides without looking at signatures; nil for all others.
	Static *Static
	// Believe is whose signatures count.
	Believe *cosign.Policy
	// Format is "legacy" or "bundle" where only signatures of that form count.
	Format string
	// Attestations, if there are any, are demanded instead of a signature.
	Attestations []Attestation
}

// Static is a decision that does not depend on signatures.
type Static struct {
	Pass    bool
	Message string
}

// Attestation is a statement that somebody has to have made about the image.
type Attestation struct {
	Name          string
	PredicateType string
	// Judge says what is wrong with a statement of that type.
	Judge func(statement []byte) error
}

// Matching returns the rules about an image. Names are all by which it is known:
// a rule that is about one of them is about the image.
func (p *Policy) Matching(name, digest string) []*Rule {
	forms := forms(name, digest)
	var out []*Rule
	for i := range p.Rules {
		if p.Rules[i].matches(forms) {
			out = append(out, &p.Rules[i])
		}
	}
	return out
}

func (r *Rule) matches(forms []string) bool {
	for _, g := range r.globs {
		for _, f := range forms {
			if g.MatchString(f) {
				return true
			}
		}
	}
	return false
}
