package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
)

// addAge takes age identities or an SSH private key.
func (k *Keys) addAge(data []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")) {
		return k.addSSH(data)
	}
	if bytes.Contains(data, []byte("AGE-PLUGIN-")) {
		return errors.New("is for a plugin of age, and plugins are not run; use a plain age identity")
	}
	identities, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		// The text of the error may quote the key.
		return errors.New("does not hold age identities; make one with: age-keygen")
	}
	for _, identity := range identities {
		switch i := identity.(type) {
		case *age.X25519Identity:
			k.names = append(k.names, i.Recipient().String())
		case *age.HybridIdentity:
			k.names = append(k.names, i.Recipient().String())
		}
	}
	k.ages = append(k.ages, identities...)
	return nil
}

func (k *Keys) addSSH(data []byte) error {
	identity, err := agessh.ParseIdentity(data)
	var passphrase *ssh.PassphraseMissingError
	if errors.As(err, &passphrase) {
		return errors.New("is protected by a passphrase; remove it with: ssh-keygen -p")
	}
	if err != nil {
		return fmt.Errorf("is not an SSH private key that age can use (Ed25519 or RSA): %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return fmt.Errorf("is not an SSH private key: %w", err)
	}
	k.names = append(k.names, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	k.ages = append(k.ages, identity)
	return nil
}

// openAge decrypts a share, nil if no identity fits.
func (k *Keys) openAge(sealed string) []byte {
	if len(k.ages) == 0 {
		return nil
	}
	plain, err := age.Decrypt(armor.NewReader(strings.NewReader(sealed)), k.ages...)
	if err != nil {
		return nil
	}
	return readShare(plain)
}

// readShare reads a share of a data key, nil if it is no such thing.
func readShare(r io.Reader) []byte {
	const most = dataKeySize + 1
	share, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil || len(share) == 0 || len(share) > most {
		return nil
	}
	return share
}
