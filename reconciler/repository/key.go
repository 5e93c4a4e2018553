package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
)

// Key chooses the key that signs. Exactly one field is set.
type Key struct {
	// SSH is the path of an existing private SSH key; its .pub file lies beside
	// it. The path of a .pub file alone means that an SSH agent holds the
	// private part.
	SSH string
	// OpenPGP is the id, fingerprint or address of a key in the user's GnuPG.
	OpenPGP string
	// Generate is the path at which to make a new ed25519 key without a
	// passphrase. An existing file there is used as it is.
	Generate string
}

// signingKey is a key that git can sign with.
type signingKey struct {
	kind string // signers.KindSSH or KindOpenPGP
	// config is git's user.signingkey.
	config string
	public string
}

func (k Key) resolve(ctx context.Context) (*signingKey, error) {
	chosen := 0
	for _, v := range []string{k.SSH, k.OpenPGP, k.Generate} {
		if v != "" {
			chosen++
		}
	}
	if chosen != 1 {
		return nil, errors.New("choose exactly one signing key: an SSH key, an OpenPGP key, or one to be generated")
	}
	switch {
	case k.OpenPGP != "":
		return openPGPKey(ctx, k.OpenPGP)
	case k.Generate != "":
		if err := generateSSHKey(ctx, k.Generate); err != nil {
			return nil, err
		}
		return sshKey(ctx, k.Generate)
	}
	return sshKey(ctx, k.SSH)
}

func generateSSHKey(ctx context.Context, path string) error {
	if err := needSSHKeygen(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("signing key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	if _, err := program(ctx, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bothy", "-f", path); err != nil {
		return fmt.Errorf("generate signing key: %w", err)
	}
	return nil
}

func sshKey(ctx context.Context, path string) (*signingKey, error) {
	if err := needSSHKeygen(ctx); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	public := path
	if !strings.HasSuffix(path, ".pub") {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("signing key: %w; give the path of a private key that you may read", err)
		}
		f.Close()
		public += ".pub"
	}
	line, err := os.ReadFile(public)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("signing key: its public part %s is missing; make it with: ssh-keygen -y -f %s > %s", public, path, public)
	}
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return &signingKey{kind: signers.KindSSH, config: path, public: strings.TrimSpace(string(line))}, nil
}

func openPGPKey(ctx context.Context, id string) (*signingKey, error) {
	public, err := exportOpenPGP(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if _, err := program(ctx, "", "gpg", "--batch", "--list-secret-keys", id); err != nil {
		return nil, fmt.Errorf("signing key: gpg has no secret key %q: %w", id, err)
	}
	return &signingKey{kind: signers.KindOpenPGP, config: id, public: strings.TrimSpace(public)}, nil
}

// exportOpenPGP returns a public key of the user's GnuPG.
func exportOpenPGP(ctx context.Context, id string) (string, error) {
	if err := need("gpg", "gnupg"); err != nil {
		return "", err
	}
	if strings.HasPrefix(id, "-") {
		return "", fmt.Errorf("%q is not an OpenPGP key id", id)
	}
	public, err := program(ctx, "", "gpg", "--batch", "--armor", "--export", id)
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(public) == "" {
		return "", fmt.Errorf("gpg has no key %q; list those it has with: gpg --list-keys", id)
	}
	return public, nil
}

// signer is the key as a trust root lists it.
func (k *signingKey) signer(name string) v1alpha1.Signer {
	return v1alpha1.Signer{Name: name, Kind: k.kind, PublicKey: k.public}
}
