package acceptance

import (
	"fmt"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
)

// The rules a commit can be refused by.
const (
	RuleSignature   = "signature"
	RuleDescent     = "descent"
	RulePaths       = "paths"
	RuleThreshold   = "threshold"
	RuleTrustRoot   = "trust root"
	RuleRootVersion = "trust root version"
	RuleAnchor      = "first boot"
	RuleTree        = "tree"
	RuleSize        = "size"
	RuleCluster     = "cluster configuration"
)

// Refusal says why a commit does not become the cluster. It is an error.
type Refusal struct {
	// Commit is the commit that was to be accepted.
	Commit  string `json:"commit"`
	Subject string `json:"subject"`
	Author  string `json:"author"`
	// Rule is one of the Rule constants.
	Rule string `json:"rule"`
	// Class refines a refusal by signature.
	Class signers.Class `json:"class,omitempty"`
	// Offender is the commit that breaks the rule, which may be an ancestor.
	Offender string `json:"offender,omitempty"`
	// Problem is a sentence, Remedy what the operator can do.
	Problem string    `json:"problem"`
	Remedy  string    `json:"remedy,omitempty"`
	At      time.Time `json:"at"`
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("refused by rule %q: %s", r.Rule, r.Problem)
	if r.Remedy != "" {
		text += "; " + r.Remedy
	}
	return text
}

// Describe names a commit in a sentence: commit 1a2b3c4d5e6f ("subject", author).
func Describe(id string, c *signers.Commit) string {
	if c == nil {
		return "commit " + short(id)
	}
	return fmt.Sprintf("commit %s (%q, %s)", short(id), clip(c.Subject(), 60), c.Author)
}

// breach is a refusal that does not know yet which tip it refuses.
func breach(rule, id string, c *signers.Commit, remedy, format string, args ...any) *Refusal {
	return &Refusal{
		Rule:     rule,
		Offender: id,
		Problem:  Describe(id, c) + " " + fmt.Sprintf(format, args...),
		Remedy:   remedy,
	}
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
