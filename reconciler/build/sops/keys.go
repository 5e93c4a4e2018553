package sops

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/ProtonMail/go-crypto/openpgp"
)

// Keys are private keys that open files. They may be used by several goroutines.
type Keys struct {
	ages  []age.Identity
	rings openpgp.EntityList
	names []string // public halves, for errors
	// foreign are entries for key services, which are not asked.
	foreign []string
}

// New reads private keys as they are in the Secret of a Flux Kustomization's
// decryption: an entry whose name ends in .agekey holds age identities, one per
// line, or an SSH private key; one that ends in .asc an OpenPGP private key.
// Other entries are not keys and are ignored. Errors name the entry.
func New(keys map[string][]byte) (*Keys, error) {
	k := &Keys{}
	var errs []error
	entries := make([]string, 0, len(keys))
	for entry := range keys {
		entries = append(entries, entry)
	}
	slices.Sort(entries)
	for _, entry := range entries {
		var err error
		switch path.Ext(entry) {
		case ".agekey":
			err = k.addAge(keys[entry])
		case ".asc":
			err = k.addOpenPGP(keys[entry])
		default:
			if strings.HasPrefix(entry, "sops.") {
				k.foreign = append(k.foreign, entry)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("decryption key %s: %w", entry, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return k, nil
}

// Recipients returns whom files can be encrypted for: age recipients and
// OpenPGP fingerprints.
func (k *Keys) Recipients() []string { return slices.Clone(k.names) }

// dataKey returns the key that the values of a file are encrypted with.
func (k *Keys) dataKey(m *metadata) ([]byte, error) {
	groups := m.groups()
	if len(groups) == 1 {
		if share := k.share(groups[0]); share != nil {
			return share, nil
		}
		return nil, k.unopened(groups, 1)
	}
	threshold := m.ShamirThreshold
	if threshold == 0 {
		threshold = len(groups)
	}
	if threshold < 2 || threshold > len(groups) {
		return nil, fmt.Errorf("its sops entry asks for %d of %d key groups", threshold, len(groups))
	}
	var shares [][]byte
	for _, g := range groups {
		if share := k.share(g); share != nil {
			shares = append(shares, share)
		}
	}
	if len(shares) < threshold {
		return nil, k.unopened(groups, threshold)
	}
	return combine(shares)
}

// share decrypts a group's share of the data key, nil if no key fits.
func (k *Keys) share(g keyGroup) []byte {
	for _, recipient := range g.Age {
		if share := k.openAge(recipient.Enc); share != nil {
			return share
		}
	}
	for _, recipient := range g.PGP {
		if share := k.openPGP(recipient.Enc); share != nil {
			return share
		}
	}
	return nil
}

// unopened says who could have opened a file.
func (k *Keys) unopened(groups []keyGroup, threshold int) error {
	var needed []string
	for _, g := range groups {
		needed = append(needed, "("+strings.Join(g.names(), ", ")+")")
	}
	want := "it is encrypted for " + needed[0]
	if len(groups) > 1 {
		want = fmt.Sprintf("it takes a key of %d of the groups %s", threshold, strings.Join(needed, " "))
	}
	have := "no key is configured"
	if len(k.names) > 0 {
		have = "configured are " + strings.Join(k.names, ", ")
	}
	if len(k.foreign) > 0 {
		have += "; " + strings.Join(k.foreign, ", ") + " is not used, because key services of clouds are not asked"
	}
	return fmt.Errorf("%s, but %s; configure a matching age or OpenPGP key, or add a recipient with: sops updatekeys", want, have)
}

// names returns the recipients of a group.
func (g *keyGroup) names() []string {
	var out []string
	for _, a := range g.Age {
		out = append(out, a.Recipient)
	}
	for _, p := range g.PGP {
		out = append(out, "OpenPGP "+p.Fingerprint)
	}
	for _, service := range []struct {
		name  string
		count int
	}{
		{"AWS KMS", len(g.AWS)},
		{"Google Cloud KMS", len(g.GCP)},
		{"Azure Key Vault", len(g.Azure)},
		{"Vault", len(g.Vault)},
		{"Huawei Cloud KMS", len(g.Huawei)},
	} {
		if service.count > 0 {
			out = append(out, service.name)
		}
	}
	if len(out) == 0 {
		return []string{"nobody"}
	}
	return out
}
