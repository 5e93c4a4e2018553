package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/internal/cosign"
)

// Image is what is to run.
type Image struct {
	// Name is the reference by which it is known. An image that is known by its
	// id alone has none.
	Name string
	// Digests are those that stand for it: of the index, if there is one, and of
	// the manifest for this machine. A signature of any of them counts, for an
	// index names its manifests by their digests.
	Digests []string
}

func (i Image) String() string {
	name := i.Name
	if name == "" {
		name = "image without a name"
	}
	if len(i.Digests) == 0 || i.Digests[0] == "" || strings.Contains(name, "@") {
		return name
	}
	return name + " (" + i.Digests[0] + ")"
}

// Verdict is the judgement of an image.
type Verdict struct {
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	// Allowed says whether it may run.
	Allowed bool `json:"allowed"`
	// Reason is why it may not, or what is to be warned of.
	Reason string `json:"reason,omitempty"`
	// Rules are those that are about the image.
	Rules []RuleVerdict `json:"rules,omitempty"`
}

// RuleVerdict is the judgement by one rule.
type RuleVerdict struct {
	Rule     string `json:"rule"`
	Passed   bool   `json:"passed"`
	WarnOnly bool   `json:"warnOnly,omitempty"`
	// Authorities are those that were asked, up to the first that was satisfied.
	Authorities []AuthorityVerdict `json:"authorities"`
}

// AuthorityVerdict is what one authority found.
type AuthorityVerdict struct {
	Authority string `json:"authority"`
	Passed    bool   `json:"passed"`
	// Static says that no signature was looked at.
	Static bool `json:"static,omitempty"`
	// Signer is the key or the identity, Digest what it signed.
	Signer string `json:"signer,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Reason is why it was not satisfied.
	Reason string `json:"reason,omitempty"`
}

// DeniedError is why an image may not run.
type DeniedError struct{ Verdict Verdict }

func (e *DeniedError) Error() string {
	return fmt.Sprintf("image policy denies %s: %s", e.Verdict.Image, e.Verdict.Reason)
}

// Err returns nil, or a [*DeniedError].
func (v Verdict) Err() error {
	if v.Allowed {
		return nil
	}
	return &DeniedError{Verdict: v}
}

// Settled says that no signature could change a denial.
func (v Verdict) Settled() bool {
	if len(v.Rules) == 0 {
		return true
	}
	for _, r := range v.Rules {
		if !r.Passed && !r.WarnOnly && !slices.ContainsFunc(r.Authorities, func(a AuthorityVerdict) bool { return !a.Static }) {
			return true
		}
	}
	return false
}

// Source returns what is attached to a digest, nil if nothing is.
type Source func(digest string) (*cosign.Signatures, error)

// Judge judges an image. A source that fails counts as one that has nothing,
// and its error becomes part of the reason.
func Judge(p *policy.Policy, image Image, source Source) Verdict {
	v := Verdict{Image: image.String()}
	if len(image.Digests) == 0 {
		v.Reason = "its digest is not known"
		return v
	}
	v.Digest = image.Digests[0]
	for _, d := range image.Digests {
		if reason, denied := p.Denied[d]; denied {
			v.Reason = "its digest " + d + " is on the deny list"
			if reason != "" {
				v.Reason += ": " + reason
			}
			return v
		}
	}
	if _, said, ok := strings.Cut(image.Name, "@"); ok && !slices.Contains(image.Digests, said) {
		// A policy that allows a digest by its name would allow anything that is called so.
		v.Reason = "it is called by the digest of something else"
		return v
	}
	rules := p.Matching(image.Name, v.Digest)
	if len(rules) == 0 {
		return noMatch(p, v)
	}
	j := &judge{image: image, source: source}
	v.Allowed = true
	var reasons []string
	for _, r := range rules {
		rv := j.rule(r)
		v.Rules = append(v.Rules, rv)
		if rv.Passed {
			continue
		}
		reasons = append(reasons, rv.reason())
		v.Allowed = v.Allowed && r.WarnOnly
	}
	v.Reason = strings.Join(reasons, "; ")
	return v
}

func noMatch(p *policy.Policy, v Verdict) Verdict {
	v.Allowed = p.NoMatch != policy.Deny
	if p.NoMatch != policy.Allow {
		v.Reason = "no policy in " + policy.File + " is about it; add one whose glob matches"
	}
	return v
}

func (r RuleVerdict) reason() string {
	var parts []string
	for _, a := range r.Authorities {
		parts = append(parts, a.Authority+": "+a.Reason)
	}
	return fmt.Sprintf("policy %s: %s", r.Rule, strings.Join(parts, "; "))
}

// judge judges one image.
type judge struct {
	image  Image
	source Source
}

func (j *judge) rule(r *policy.Rule) RuleVerdict {
	out := RuleVerdict{Rule: r.Name, WarnOnly: r.WarnOnly}
	for i := range r.Authorities {
		a := j.authority(&r.Authorities[i])
		out.Authorities = append(out.Authorities, a)
		if a.Passed {
			out.Passed = true
			break
		}
	}
	return out
}

func (j *judge) authority(a *policy.Authority) AuthorityVerdict {
	out := AuthorityVerdict{Authority: a.Name}
	if a.Static != nil {
		out.Static, out.Passed = true, a.Static.Pass
		if out.Reason = a.Static.Message; !out.Passed && out.Reason == "" {
			out.Reason = "is denied whatever signatures it has"
		}
		return out
	}
	var reasons []error
	for _, d := range j.image.Digests {
		found, err := j.source(d)
		if err != nil {
			reasons = append(reasons, fmt.Errorf("signatures of %s: %w", d, err))
			continue
		}
		signer, err := satisfied(a, only(a.Format, found), d)
		if err == nil {
			out.Passed, out.Signer, out.Digest = true, signer, d
			return out
		}
		reasons = append(reasons, err)
	}
	out.Reason = errors.Join(reasons...).Error()
	out.Reason = strings.ReplaceAll(out.Reason, "\n", "; ")
	return out
}

// satisfied returns who signed. With attestations each of them is demanded, and
// a plain signature is not.
func satisfied(a *policy.Authority, found *cosign.Signatures, digest string) (string, error) {
	if len(a.Attestations) == 0 {
		v, err := cosign.Check(found, digest, a.Believe)
		if err != nil {
			return "", err
		}
		return v.Signer, nil
	}
	var signer string
	for _, want := range a.Attestations {
		v, err := cosign.CheckStatement(found, digest, a.Believe, want.PredicateType, want.Judge)
		if err != nil {
			return "", fmt.Errorf("%s: %w", want.Name, err)
		}
		signer = v.Signer
	}
	return signer, nil
}

// only leaves the signatures of a format.
func only(format string, s *cosign.Signatures) *cosign.Signatures {
	if s == nil || format == "" {
		return s
	}
	out := *s
	if format == "bundle" {
		out.Payloads, out.Envelopes = nil, nil
	} else {
		out.Bundles = nil
	}
	return &out
}
