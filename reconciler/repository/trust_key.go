package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
)

// SignerSource says where the public part of a signer comes from. Exactly one
// of SSHKey, Keys, OpenPGP, CertificateAuthorities and TrustedRoot is set.
type SignerSource struct {
	// SSHKey is a file with one OpenSSH public key, or "-" for Stdin. The path of
	// a private key stands for the .pub file beside it.
	SSHKey string
	// Keys is a file with several OpenSSH public keys, as forges publish those of
	// a user (https://github.com/NAME.keys), or "-". Each becomes a signer.
	Keys string
	// OpenPGP is a file with an armored public key, or a key of the user's GnuPG.
	OpenPGP string
	// CertificateAuthorities is a file with PEM certificates, TrustedRoot one with
	// a Sigstore trusted root.
	CertificateAuthorities, TrustedRoot string
	// Subject and Issuer are what certificates must say.
	Subject, Issuer string
	// TransparencyLogKeys and TimestampAuthorities are PEM files.
	TransparencyLogKeys, TimestampAuthorities string

	Stdin io.Reader
}

// Signers makes signers of the source. The first is called name; further ones,
// of Keys, name-2 and so on.
func (s SignerSource) Signers(ctx context.Context, name string) ([]v1alpha1.Signer, error) {
	chosen := 0
	for _, v := range []string{s.SSHKey, s.Keys, s.OpenPGP, s.CertificateAuthorities, s.TrustedRoot} {
		if v != "" {
			chosen++
		}
	}
	if chosen != 1 {
		return nil, errors.New("choose exactly one key: an SSH key, a list of SSH keys, an OpenPGP key, or an x509 authority")
	}
	if s.CertificateAuthorities != "" || s.TrustedRoot != "" {
		return s.x509(name)
	}
	if s.Subject != "" || s.Issuer != "" || s.TransparencyLogKeys != "" || s.TimestampAuthorities != "" {
		return nil, errors.New("subject, issuer, log keys and time-stamp authorities are for x509 signers")
	}
	switch {
	case s.OpenPGP != "":
		return s.openPGP(ctx, name)
	case s.Keys != "":
		return s.keys(name)
	}
	return s.ssh(name)
}

func (s SignerSource) ssh(name string) ([]v1alpha1.Signer, error) {
	text, err := s.read(s.SSHKey)
	if err == nil && strings.Contains(text, "PRIVATE KEY") {
		text, err = s.read(s.SSHKey + ".pub")
	}
	if err != nil {
		return nil, err
	}
	return checked(v1alpha1.Signer{Name: name, Kind: signers.KindSSH, PublicKey: strings.TrimSpace(text)})
}

func (s SignerSource) keys(name string) ([]v1alpha1.Signer, error) {
	text, err := s.read(s.Keys)
	if err != nil {
		return nil, err
	}
	lines, others := signers.KeysOf(text)
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s holds no SSH key that may sign, and %d others", s.Keys, others)
	}
	var out []v1alpha1.Signer
	for i, line := range lines {
		each := name
		if i > 0 {
			each = fmt.Sprintf("%s-%d", name, i+1)
		}
		out = append(out, v1alpha1.Signer{Name: each, Kind: signers.KindSSH, PublicKey: line})
	}
	return checked(out...)
}

func (s SignerSource) openPGP(ctx context.Context, name string) ([]v1alpha1.Signer, error) {
	var text string
	if _, err := os.Stat(s.OpenPGP); err == nil || s.OpenPGP == "-" {
		if text, err = s.read(s.OpenPGP); err != nil {
			return nil, err
		}
	} else {
		if text, err = exportOpenPGP(ctx, s.OpenPGP); err != nil {
			return nil, err
		}
	}
	return checked(v1alpha1.Signer{Name: name, Kind: signers.KindOpenPGP, PublicKey: strings.TrimSpace(text)})
}

func (s SignerSource) x509(name string) ([]v1alpha1.Signer, error) {
	out := v1alpha1.Signer{Name: name, Kind: signers.KindX509, Subject: s.Subject, Issuer: s.Issuer}
	for _, f := range []struct {
		path string
		into *string
	}{
		{s.CertificateAuthorities, &out.CertificateAuthorities},
		{s.TrustedRoot, &out.TrustedRoot},
		{s.TransparencyLogKeys, &out.TransparencyLogKeys},
		{s.TimestampAuthorities, &out.TimestampAuthorities},
	} {
		if f.path == "" {
			continue
		}
		text, err := s.read(f.path)
		if err != nil {
			return nil, err
		}
		*f.into = strings.TrimSpace(text)
	}
	return checked(out)
}

// checked refuses keys that a machine would refuse.
func checked(list ...v1alpha1.Signer) ([]v1alpha1.Signer, error) {
	_, err := signers.NewKeyring(list)
	return list, err
}

// maxKeyFile bounds the files that keys are read from.
const maxKeyFile = 1 << 20

func (s SignerSource) read(path string) (string, error) {
	in := s.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read key: %w", err)
		}
		defer f.Close()
		in = f
	}
	if in == nil {
		return "", errors.New("read key: there is no standard input")
	}
	data, err := io.ReadAll(io.LimitReader(in, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("read key: %w", err)
	}
	return string(data), nil
}
