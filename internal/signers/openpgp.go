package signers

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// parseOpenPGPKey reads one armored public key with its subkeys, expiry and
// revocations.
func parseOpenPGPKey(text string) (*openpgp.Entity, error) {
	entities, err := openpgp.ReadArmoredKeyRing(strings.NewReader(text))
	switch {
	case err != nil:
		return nil, fmt.Errorf("publicKey is not an armored OpenPGP key as printed by \"gpg --armor --export KEYID\": %w", err)
	case len(entities) != 1:
		return nil, fmt.Errorf("publicKey holds %d keys; make one signer of each", len(entities))
	}
	e := entities[0]
	if e.PrivateKey != nil {
		return nil, errors.New("publicKey holds a PRIVATE key; replace it by the output of \"gpg --armor --export KEYID\" and consider the key compromised")
	}
	return e, allowedOpenPGPKey(e.PrimaryKey)
}

func allowedOpenPGPKey(pk *packet.PublicKey) error {
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519, packet.PubKeyAlgoEd448, packet.PubKeyAlgoECDSA:
		return nil
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if rk, ok := pk.PublicKey.(*rsa.PublicKey); ok && rk.N.BitLen() >= minRSABits {
			return nil
		}
		return fmt.Errorf("RSA keys need at least %d bits; use ed25519", minRSABits)
	}
	return fmt.Errorf("OpenPGP algorithm %d is not accepted; use ed25519", pk.PubKeyAlgo)
}

func openPGPFingerprint(e *openpgp.Entity) string {
	return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)
}

// verifyOpenPGP checks an armored detached signature of payload.
func (r *Keyring) verifyOpenPGP(payload, armored []byte, now time.Time) (*key, error) {
	raw, sig, err := parseOpenPGPSignature(armored)
	if err != nil {
		return nil, err
	}
	// A machine with a slow clock must not take a fresh signature for one from
	// the future; a later time only makes the checks of key expiry stricter.
	if sig.CreationTime.After(now) {
		now = sig.CreationTime
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	issuer := fmt.Sprintf("%016X", *sig.IssuerKeyId)
	for _, k := range r.keys {
		if k.pgp == nil || len(openpgp.EntityList{k.pgp}.KeysById(*sig.IssuerKeyId)) == 0 {
			continue
		}
		_, entity, err := openpgp.VerifyDetachedSignature(openpgp.EntityList{k.pgp}, bytes.NewReader(payload), bytes.NewReader(raw), config)
		if err != nil {
			return nil, openPGPError(k.signer.Name, issuer, err)
		}
		if entity != k.pgp {
			return nil, unknownKey(issuer)
		}
		return k, usableIssuer(k, sig)
	}
	return nil, unknownKey(issuer)
}

// parseOpenPGPSignature accepts exactly one binary document signature with a
// strong hash.
func parseOpenPGPSignature(armored []byte) ([]byte, *packet.Signature, error) {
	bad := func(problem string, err error) error {
		return &Error{Class: Malformed, Problem: "has an OpenPGP signature that " + problem, Remedy: signAgain, Err: err}
	}
	in := bytes.NewReader(armored)
	block, err := armor.Decode(in)
	if err != nil {
		return nil, nil, bad("cannot be read", err)
	}
	if block.Type != openpgp.SignatureType {
		return nil, nil, bad("is of type "+block.Type, nil)
	}
	raw, err := io.ReadAll(block.Body)
	if err != nil {
		return nil, nil, bad("cannot be read", err)
	}
	packets := packet.NewReader(bytes.NewReader(raw))
	p, err := packets.Next()
	if err != nil {
		return nil, nil, bad("cannot be read", err)
	}
	sig, ok := p.(*packet.Signature)
	if !ok {
		return nil, nil, bad("holds something else", nil)
	}
	if _, err := packets.Next(); !errors.Is(err, io.EOF) {
		return nil, nil, bad("holds more than one packet", nil)
	}
	switch {
	case sig.SigType != packet.SigTypeBinary:
		return nil, nil, bad("does not sign a binary document", nil)
	case sig.IssuerKeyId == nil:
		return nil, nil, bad("does not name its key", nil)
	}
	switch sig.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
		return raw, sig, nil
	}
	return nil, nil, &Error{Class: Unsupported, Problem: "has an OpenPGP signature with a weak hash", Remedy: "set \"digest-algo SHA512\" in gpg.conf and sign again"}
}

// usableIssuer checks the very key that signed, which may be a subkey.
func usableIssuer(k *key, sig *packet.Signature) error {
	for _, issuer := range (openpgp.EntityList{k.pgp}).KeysById(*sig.IssuerKeyId) {
		if err := allowedOpenPGPKey(issuer.PublicKey); err != nil {
			return &Error{Class: Unsupported, Problem: fmt.Sprintf("is signed with a weak key of %q", k.signer.Name), Err: err, Remedy: "sign with an ed25519 key"}
		}
		if sig.CreationTime.Before(issuer.PublicKey.CreationTime) {
			return &Error{Class: Expired, Problem: fmt.Sprintf("has a signature of %q that is older than its key", k.signer.Name), Remedy: signAgain}
		}
	}
	return nil
}

func openPGPError(signer, issuer string, err error) *Error {
	switch {
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return &Error{Class: Expired, Problem: fmt.Sprintf("is signed by %q, whose OpenPGP key %s has expired", signer, issuer), Remedy: "extend the key (gpg --quick-set-expire), have another signer put the new export into trust/root.yaml, then sign again", Err: err}
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return &Error{Class: Expired, Problem: fmt.Sprintf("has a signature of %q that has expired", signer), Remedy: signAgain, Err: err}
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return &Error{Class: Revoked, Problem: fmt.Sprintf("is signed by %q, whose OpenPGP key %s is revoked", signer, issuer), Remedy: "sign with a key that is valid", Err: err}
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return &Error{Class: UnknownKey, Problem: fmt.Sprintf("is signed by the key %s of %q, which may not sign", issuer, signer), Remedy: "sign with a key or subkey that has the sign flag", Err: err}
	}
	return &Error{Class: Mismatch, Problem: fmt.Sprintf("carries a signature of %q that was not made for this commit", signer), Remedy: signAgain, Err: err}
}
