package acceptance

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// checkRules refuses changes that the signer of a commit may not make, and
// notes which rules allow the others. A path may be changed if at least one rule
// that covers it is satisfied; without rules every signer may change everything.
func (s *step) checkRules(ctx context.Context) error {
	rules := s.root.spec.Rules
	if len(rules) == 0 {
		return nil
	}
	uses := make([]RuleUse, len(rules))
	for _, ch := range s.changes {
		v, err := s.judge(ctx, rules, ch)
		switch {
		case err != nil:
			return err
		case v.allowed:
			uses[v.rule].count(v.coSigners)
		case v.needsMore:
			return breach(RuleThreshold, s.id, s.commit,
				"have another signer commit the change on a branch, and merge it with a signed merge commit (git merge --no-ff -S)",
				"changes %s, which needs two signers, but only %q signed it", ch.Path, s.signer.Signer)
		default:
			return breach(RulePaths, s.id, s.commit, s.whoMay(rules, ch.Path),
				"changes %s, which %q may not change", ch.Path, s.signer.Signer)
		}
	}
	for i, u := range uses {
		if u.Files > 0 {
			u.Rule, u.Paths, u.Signers, u.Threshold = i, rules[i].Paths, rules[i].Signers, rules[i].Threshold
			s.uses = append(s.uses, u)
		}
	}
	return nil
}

func (u *RuleUse) count(coSigners []string) {
	u.Files++
	for _, name := range coSigners {
		if !slices.Contains(u.CoSigners, name) {
			u.CoSigners = append(u.CoSigners, name)
		}
	}
}

// verdict is what the rules say about one changed file.
type verdict struct {
	// allowed says that rule is satisfied, with the help of coSigners.
	allowed   bool
	rule      int
	coSigners []string
	// needsMore says that a rule lacks only further signers.
	needsMore bool
}

func (s *step) judge(ctx context.Context, rules []v1alpha1.Rule, ch change) (verdict, error) {
	var v verdict
	for i, rule := range rules {
		// The signer of the commit must be one of the rule's: a stranger's merge
		// does not become a reviewed one by what it merges.
		if !Covers(rule, ch.Path) {
			continue
		}
		named := slices.Contains(rule.Signers, s.signer.Signer)
		if named && rule.Threshold < 2 {
			return verdict{allowed: true, rule: i}, nil
		}
		if rule.Threshold < 2 {
			continue
		}
		made, err := s.contributors(ctx)
		if err != nil {
			return v, err
		}
		var others []string
		for _, name := range made[ch] {
			if name != s.signer.Signer && slices.Contains(rule.Signers, name) {
				others = append(others, name)
			}
		}
		if named && 1+len(others) >= rule.Threshold {
			return verdict{allowed: true, rule: i, coSigners: others}, nil
		}
		v.needsMore = v.needsMore || named || len(others) > 0
	}
	return v, nil
}

func (s *step) whoMay(rules []v1alpha1.Rule, at string) string {
	var names []string
	for _, rule := range rules {
		if Covers(rule, at) {
			names = append(names, rule.Signers...)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return "add a rule for this path to trust/root.yaml: no rule covers it"
	}
	return "leave the change to " + strings.Join(names, " or ") + ", or extend the rules in trust/root.yaml"
}

// Covers reports whether one of the rule's patterns matches the path: * and ?
// stay within one element, ** stands for any number of elements, and a trailing
// slash for everything below.
func Covers(rule v1alpha1.Rule, at string) bool {
	return slices.ContainsFunc(rule.Paths, func(pattern string) bool { return matchPath(pattern, at) })
}

// matchPath matches a path against a pattern of the form used by rules: * and
// ? stay within one element, ** stands for any number of elements, and a
// trailing slash for everything below.
func matchPath(pattern, at string) bool {
	if strings.HasSuffix(pattern, "/") {
		pattern += "**"
	}
	return matchElements(strings.Split(pattern, "/"), strings.Split(at, "/"))
}

func matchElements(pattern, elements []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			rest := pattern[1:]
			if len(rest) == 0 {
				return len(elements) > 0
			}
			for i := range elements {
				if matchElements(rest, elements[i:]) {
					return true
				}
			}
			return false
		}
		if len(elements) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], elements[0]); err != nil || !ok {
			return false
		}
		pattern, elements = pattern[1:], elements[1:]
	}
	return len(elements) == 0
}
