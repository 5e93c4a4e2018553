package signers

import (
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// Description is what people compare when they look at a signer.
type Description struct {
	// Fingerprints are those of the key, or of the pinned authorities of an x509
	// signer, in the form of Verified.Fingerprint.
	Fingerprints []string `json:"fingerprints"`
	// Owner is the comment of an SSH key, the user id of an OpenPGP key, or the
	// subject and issuer that a certificate must name.
	Owner string `json:"owner,omitempty"`
	// Expires is when an OpenPGP key ends by itself, or the first of the pinned
	// authorities does; nil if never.
	Expires *time.Time `json:"expires,omitempty"`
}

// Describe parses the signer's key. Errors are those of [NewKeyring].
func Describe(s v1alpha1.Signer) (*Description, error) {
	k, err := parseKey(s)
	if err != nil {
		return nil, err
	}
	switch {
	case k.ssh != nil:
		_, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(s.PublicKey))
		return &Description{Fingerprints: []string{k.fingerprint}, Owner: comment}, err
	case k.pgp != nil:
		return describeOpenPGP(k), nil
	}
	return describeX509(k), nil
}

func describeOpenPGP(k *key) *Description {
	d := &Description{Fingerprints: []string{k.fingerprint}}
	if id := k.pgp.PrimaryIdentity(); id != nil {
		d.Owner = id.Name
		if life := id.SelfSignature.KeyLifetimeSecs; life != nil && *life > 0 {
			end := k.pgp.PrimaryKey.CreationTime.Add(time.Duration(*life) * time.Second).UTC()
			d.Expires = &end
		}
	}
	return d
}

func describeX509(k *key) *Description {
	d := &Description{}
	for _, cert := range k.x509.roots {
		d.Fingerprints = append(d.Fingerprints, certificateFingerprint(cert))
		if end := cert.NotAfter.UTC(); d.Expires == nil || end.Before(*d.Expires) {
			d.Expires = &end
		}
	}
	d.Owner = strings.TrimSpace(k.signer.Subject)
	if d.Owner == "" {
		d.Owner = "anybody"
	}
	if k.signer.Issuer != "" {
		d.Owner += " (" + k.signer.Issuer + ")"
	}
	return d
}

// KeysOf returns the SSH public keys in text that may be signers, one per line
// as in authorized_keys or a forge's list of a user's keys, and how many others
// there are.
func KeysOf(text string) (lines []string, others int) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, err := parseSSHKey(line); err != nil {
			others++
			continue
		}
		lines = append(lines, line)
	}
	return lines, others
}
