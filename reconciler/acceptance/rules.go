package acceptance

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
)

// checkRules refuses changes that the signer of a commit may not make. A path
// may be changed if at least one rule that covers it is satisfied; without
// rules every signer may change everything.
func (s *step) checkRules(ctx context.Context, changes []change) error {
	rules := s.root.spec.Rules
	if len(rules) == 0 {
		return nil
	}
	for _, ch := range changes {
		allowed, needsMore, err := s.allowed(ctx, rules, ch)
		switch {
		case err != nil:
			return err
		case allowed:
		case needsMore:
			return breach(RuleThreshold, s.id, s.commit,
				"have another signer commit the change on a branch, and merge it with a signed merge commit (git merge --no-ff -S)",
				"changes %s, which needs two signers, but only %q signed it", ch.Path, s.signer.Signer)
		default:
			return breach(RulePaths, s.id, s.commit, s.whoMay(rules, ch.Path),
				"changes %s, which %q may not change", ch.Path, s.signer.Signer)
		}
	}
	return nil
}

// allowed reports whether one of the rules is satisfied, or else whether one
// lacks only further signers.
func (s *step) allowed(ctx context.Context, rules []v1alpha1.Rule, ch change) (ok, needsMore bool, err error) {
	for _, rule := range rules {
		if !covers(rule, ch.Path) {
			continue
		}
		count := 0
		if slices.Contains(rule.Signers, s.signer.Signer) {
			count++
		}
		if count >= rule.Threshold {
			return true, false, nil
		}
		if rule.Threshold < 2 {
			continue
		}
		authors, err := s.authors(ctx, ch)
		if err != nil {
			return false, false, err
		}
		for author := range authors {
			if author != s.signer.Signer && slices.Contains(rule.Signers, author) {
				count++
			}
		}
		// The signer of the merge must be one of the rule's: a stranger's merge
		// does not become a reviewed one by what it merges.
		if count >= rule.Threshold && slices.Contains(rule.Signers, s.signer.Signer) {
			return true, false, nil
		}
		needsMore = needsMore || count > 0
	}
	return false, needsMore, nil
}

func (s *step) whoMay(rules []v1alpha1.Rule, at string) string {
	var names []string
	for _, rule := range rules {
		if covers(rule, at) {
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

// authors returns the signers of the commits merged by this commit that gave
// the changed file its present content. Only the commit that made the content
// counts: whoever signed another change on the same branch did not review it.
func (s *step) authors(ctx context.Context, ch change) (map[string]bool, error) {
	merged, err := s.mergedCommits(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, m := range merged {
		made, err := s.gave(m.commit, ch)
		if err != nil {
			return nil, err
		}
		if made {
			out[m.signer.Signer] = true
		}
	}
	return out, nil
}

// gave reports whether the commit's own change made the file what it is.
func (s *step) gave(c *signers.Commit, ch change) (bool, error) {
	now, err := s.contentAt(c.Tree, ch.Path)
	if err != nil || now != ch.What {
		return false, err
	}
	for _, parent := range c.Parents {
		p, err := s.h.commit(parent)
		if err != nil {
			return false, err
		}
		before, err := s.contentAt(p.Tree, ch.Path)
		if err != nil {
			return false, err
		}
		if before == ch.What {
			return false, nil
		}
	}
	return true, nil
}

func (s *step) contentAt(tree, at string) (string, error) {
	e, err := s.h.lookup(tree, at)
	if err != nil || e == nil || treeID(*e) != "" {
		return "", err
	}
	return content(*e), nil
}

// covers reports whether one of the rule's patterns matches the path.
func covers(rule v1alpha1.Rule, at string) bool {
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
