package repository

import (
	"fmt"
	"strings"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
)

// TrustSummary is a trust root for people to read. It can be encoded as JSON.
type TrustSummary struct {
	Version int64           `json:"version"`
	Signers []SignerSummary `json:"signers"`
	// Rules is empty if every signer may change everything.
	Rules []v1alpha1.Rule `json:"rules,omitempty"`
}

// SignerSummary is one signer.
type SignerSummary struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	signers.Description
	NotBefore *time.Time `json:"notBefore,omitempty"`
	NotAfter  *time.Time `json:"notAfter,omitempty"`
	// State is valid, expired or not yet valid, by the given time.
	State string `json:"state"`
	// Rules are the places of the rules that name the signer, from 0.
	Rules []int `json:"rules,omitempty"`
	// ChangesTrust says that the signer may change the trust root, alone or
	// together with another one.
	ChangesTrust bool `json:"changesTrust"`
}

// SummarizeTrust describes a trust root. now is for which keys are valid.
func SummarizeTrust(r *v1alpha1.TrustRoot, now time.Time) (*TrustSummary, error) {
	out := &TrustSummary{Version: r.Version, Rules: r.Rules}
	for _, s := range r.Signers {
		d, err := signers.Describe(s)
		if err != nil {
			return nil, fmt.Errorf("%s: signer %q: %w", rootFile, s.Name, err)
		}
		sum := SignerSummary{
			Name: s.Name, Kind: s.Kind, Description: *d, NotBefore: s.NotBefore, NotAfter: s.NotAfter,
			State: stateAt(s, d, now), ChangesTrust: len(r.Rules) == 0,
		}
		for i, rule := range r.Rules {
			for _, name := range rule.Signers {
				if name == s.Name {
					sum.Rules = append(sum.Rules, i)
					sum.ChangesTrust = sum.ChangesTrust || acceptance.Covers(rule, rootFile)
				}
			}
		}
		out.Signers = append(out.Signers, sum)
	}
	return out, nil
}

func stateAt(s v1alpha1.Signer, d *signers.Description, now time.Time) string {
	switch {
	case s.NotBefore != nil && now.Before(*s.NotBefore):
		return "not yet valid"
	case s.NotAfter != nil && now.After(*s.NotAfter), d.Expires != nil && now.After(*d.Expires):
		return "expired"
	}
	return "valid"
}

// Validity is the time in which a signer's signatures count, in words.
func (s *SignerSummary) Validity() string {
	var parts []string
	if s.NotBefore != nil {
		parts = append(parts, "from "+s.NotBefore.UTC().Format(time.DateOnly))
	}
	end := s.NotAfter
	if s.Expires != nil && (end == nil || s.Expires.Before(*end)) {
		end = s.Expires
	}
	if end != nil {
		parts = append(parts, "until "+end.UTC().Format(time.DateOnly))
	}
	if s.State != "valid" {
		parts = append(parts, "("+s.State+")")
	}
	if len(parts) == 0 {
		return "unlimited"
	}
	return strings.Join(parts, " ")
}
