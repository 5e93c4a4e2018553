package repository

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
)

// Trust is trust/root.yaml of a work tree, to look at and to change. What is
// not changed, comments included, stays as it is, byte for byte. Nothing is
// written before Save, and nothing commits but Commit: who may change the trust
// root is for the commit's signature to prove.
type Trust struct {
	// Dir is the work tree.
	Dir string
	// Root is the trust root with the changes so far.
	Root *v1alpha1.TrustRoot

	text    rootText
	before  *v1alpha1.TrustRoot
	changed bool
}

// OpenTrust reads the trust root of the work tree that dir belongs to.
func OpenTrust(dir string) (*Trust, error) {
	place, err := locate(dir)
	if err != nil {
		return nil, err
	}
	if place.top == "" {
		return nil, fmt.Errorf("%s is a bare repository; clone it and give the work tree", dir)
	}
	file := filepath.Join(place.top, rootFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s; give the work tree of a site's repository, or make one with bothy repo init", place.top, rootFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read the trust root: %w", err)
	}
	root, err := v1alpha1.DecodeTrustRoot(rootFile, data)
	if err != nil {
		return nil, err
	}
	t := &Trust{Dir: place.top, Root: root, text: rootText(data)}
	t.before = clone(root)
	return t, nil
}

func clone(r *v1alpha1.TrustRoot) *v1alpha1.TrustRoot {
	c := *r
	c.Signers = slices.Clone(r.Signers)
	c.Rules = slices.Clone(r.Rules)
	for i := range c.Rules {
		c.Rules[i].Signers = slices.Clone(c.Rules[i].Signers)
	}
	return &c
}

// Add adds signers. Rules do not name them yet.
func (t *Trust) Add(added ...v1alpha1.Signer) error {
	next := clone(t.Root)
	text := t.text
	for _, s := range added {
		if t.find(s.Name) >= 0 {
			return fmt.Errorf("signer %q is listed already; choose another name, or give the signer a new key with bothy trust rotate", s.Name)
		}
		next.Signers = append(next.Signers, s)
		var err error
		if text, err = text.appendItem("signers", renderSigner(s)); err != nil {
			return err
		}
	}
	return t.become(next, text)
}

// Remove removes a signer, also from the rules.
func (t *Trust) Remove(name string) error {
	i := t.find(name)
	if i < 0 {
		return t.unknown(name)
	}
	if len(t.Root.Signers) == 1 {
		return fmt.Errorf("%q is the last signer: without one nobody could ever sign again; add another one first, or give this one a new key with bothy trust rotate", name)
	}
	next := clone(t.Root)
	next.Signers = slices.Delete(next.Signers, i, i+1)
	text, err := t.text.removeItem("signers", i)
	if err != nil {
		return err
	}
	for j := range next.Rules {
		rule := &next.Rules[j]
		if !slices.Contains(rule.Signers, name) {
			continue
		}
		rule.Signers = slices.DeleteFunc(rule.Signers, func(n string) bool { return n == name })
		if text, err = text.replaceItem("rules", j, renderRule(*rule)); err != nil {
			return err
		}
	}
	return t.become(next, text)
}

// Rotate gives a signer a new key. The name, and with it what rules say, stays.
func (t *Trust) Rotate(name string, to v1alpha1.Signer) error {
	i := t.find(name)
	if i < 0 {
		return t.unknown(name)
	}
	to.Name = name
	next := clone(t.Root)
	if next.Signers[i].Kind == to.Kind && sameKey(next.Signers[i], to) {
		return fmt.Errorf("signer %q has this key already", name)
	}
	next.Signers[i] = to
	text, err := t.text.replaceItem("signers", i, renderSigner(to))
	if err != nil {
		return err
	}
	return t.become(next, text)
}

func sameKey(a, b v1alpha1.Signer) bool {
	x, errX := signers.Describe(a)
	y, errY := signers.Describe(b)
	return errX == nil && errY == nil && slices.Equal(x.Fingerprints, y.Fingerprints) && x.Owner == y.Owner
}

// AddRule adds a rule behind the others.
func (t *Trust) AddRule(rule v1alpha1.Rule) error {
	next := clone(t.Root)
	next.Rules = append(next.Rules, withThreshold(rule))
	text, err := t.text.appendItem("rules", renderRule(rule))
	if err != nil {
		return err
	}
	return t.become(next, text)
}

// SetRule replaces the rule at a place, counted from 0.
func (t *Trust) SetRule(at int, rule v1alpha1.Rule) error {
	if err := t.hasRule(at); err != nil {
		return err
	}
	next := clone(t.Root)
	next.Rules[at] = withThreshold(rule)
	text, err := t.text.replaceItem("rules", at, renderRule(rule))
	if err != nil {
		return err
	}
	return t.become(next, text)
}

// RemoveRule removes the rule at a place, counted from 0.
func (t *Trust) RemoveRule(at int) error {
	if err := t.hasRule(at); err != nil {
		return err
	}
	if len(t.Root.Rules) == 1 {
		return errors.New("this is the last rule: without one every signer may change everything; write a rule with paths \"**\" that names the signers who may")
	}
	next := clone(t.Root)
	next.Rules = slices.Delete(next.Rules, at, at+1)
	text, err := t.text.removeItem("rules", at)
	if err != nil {
		return err
	}
	return t.become(next, text)
}

func (t *Trust) hasRule(at int) error {
	if at < 0 || at >= len(t.Root.Rules) {
		return fmt.Errorf("there is no rule %d; bothy trust show numbers the %d rules from 0", at, len(t.Root.Rules))
	}
	return nil
}

func withThreshold(r v1alpha1.Rule) v1alpha1.Rule {
	r.Threshold = max(r.Threshold, 1)
	return r
}

func (t *Trust) find(name string) int {
	return slices.IndexFunc(t.Root.Signers, func(s v1alpha1.Signer) bool { return s.Name == name })
}

func (t *Trust) unknown(name string) error {
	var names []string
	for _, s := range t.Root.Signers {
		names = append(names, s.Name)
	}
	return fmt.Errorf("there is no signer %q; the trust root lists %s", name, strings.Join(names, ", "))
}

// become takes a change over if the result is a trust root that can be used,
// and that can be changed again.
func (t *Trust) become(next *v1alpha1.TrustRoot, text rootText) error {
	if err := usable(next); err != nil {
		return err
	}
	if !t.changed {
		next.Version++
		var err error
		if text, err = text.setVersion(next.Version); err != nil {
			return err
		}
	}
	got, err := v1alpha1.DecodeTrustRoot(rootFile, []byte(text))
	if err != nil {
		return err
	}
	if _, err := signers.NewKeyring(got.Signers); err != nil {
		return err
	}
	if !equalRoots(got, next) {
		return fmt.Errorf("%s is written in a way that cannot be changed without loss; change it by hand", rootFile)
	}
	t.Root, t.text, t.changed = got, text, true
	return nil
}

func equalRoots(a, b *v1alpha1.TrustRoot) bool {
	return acceptance.TrustID(v1alpha1.BootTrust{Root: a}) == acceptance.TrustID(v1alpha1.BootTrust{Root: b})
}

// usable refuses rules that nobody can satisfy, and a trust root that nobody
// could change again.
func usable(r *v1alpha1.TrustRoot) error {
	changeable := len(r.Rules) == 0
	for i, rule := range r.Rules {
		names := slices.Compact(slices.Sorted(slices.Values(rule.Signers)))
		if len(names) < max(rule.Threshold, 1) {
			return fmt.Errorf("rule %d (%s) would need %d signers and name only %d; change the rule first", i, strings.Join(rule.Paths, ", "), max(rule.Threshold, 1), len(names))
		}
		changeable = changeable || acceptance.Covers(rule, rootFile)
	}
	if !changeable {
		return fmt.Errorf("no rule would cover %s: nobody could change it ever again; give somebody a rule with paths \"trust/**\" or \"**\" first", rootFile)
	}
	return nil
}

// Changes says in words what Save would write.
func (t *Trust) Changes() []string {
	var out []string
	if !t.changed {
		return nil
	}
	was, is := map[string]v1alpha1.Signer{}, map[string]v1alpha1.Signer{}
	for _, s := range t.before.Signers {
		was[s.Name] = s
	}
	for _, s := range t.Root.Signers {
		is[s.Name] = s
		switch old, known := was[s.Name]; {
		case !known:
			out = append(out, "add signer "+s.Name)
		case !sameKey(old, s):
			out = append(out, "rotate the key of "+s.Name)
		}
	}
	for _, s := range t.before.Signers {
		if _, kept := is[s.Name]; !kept {
			out = append(out, "remove signer "+s.Name)
		}
	}
	if !slices.EqualFunc(t.before.Rules, t.Root.Rules, equalRules) {
		out = append(out, "change the rules")
	}
	return out
}

func equalRules(a, b v1alpha1.Rule) bool {
	return slices.Equal(a.Signers, b.Signers) && slices.Equal(a.Paths, b.Paths) && a.Threshold == b.Threshold
}

// Save writes the changed trust root, and beside it the file by which git
// verifies SSH signatures, if the repository has one.
func (t *Trust) Save() error {
	if !t.changed {
		return nil
	}
	if err := durable.WriteFile(filepath.Join(t.Dir, rootFile), []byte(t.text), 0o644); err != nil {
		return fmt.Errorf("write the trust root: %w", err)
	}
	allowed := filepath.Join(t.Dir, allowedSignersFile)
	if _, err := os.Stat(allowed); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var b strings.Builder
	for _, s := range t.Root.Signers {
		if s.Kind == signers.KindSSH {
			b.WriteString(allowedSigner(s.Name, s.PublicKey))
		}
	}
	return durable.WriteFile(allowed, []byte(b.String()), 0o644)
}
