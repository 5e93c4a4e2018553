package sops

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// addOpenPGP takes OpenPGP private keys.
func (k *Keys) addOpenPGP(data []byte) error {
	read := openpgp.ReadKeyRing
	if bytes.Contains(data, []byte("-----BEGIN PGP")) {
		read = openpgp.ReadArmoredKeyRing
	}
	ring, err := read(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("is not an OpenPGP key: %w", err)
	}
	for _, entity := range ring {
		if entity.PrivateKey == nil {
			return errors.New("is a public key; export the private one with: gpg --export-secret-keys --armor")
		}
		if entity.PrivateKey.Encrypted {
			return errors.New("is protected by a passphrase; export it without one")
		}
		k.names = append(k.names, fmt.Sprintf("OpenPGP %X", entity.PrimaryKey.Fingerprint))
	}
	k.rings = append(k.rings, ring...)
	return nil
}

// openPGP decrypts a share, nil if no key fits.
func (k *Keys) openPGP(sealed string) []byte {
	if len(k.rings) == 0 {
		return nil
	}
	block, err := armor.Decode(strings.NewReader(sealed))
	if err != nil {
		return nil
	}
	message, err := openpgp.ReadMessage(block.Body, k.rings, nil, &packet.Config{})
	if err != nil {
		return nil
	}
	return readShare(message.UnverifiedBody)
}
