package signers

import (
	"bytes"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// sshNamespace is what git gives to ssh-keygen -Y sign -n.
const sshNamespace = "git"

const minRSABits = 2048

// parseSSHKey reads one line as in authorized_keys or an id_*.pub file.
func parseSSHKey(line string) (ssh.PublicKey, error) {
	pub, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return nil, fmt.Errorf("publicKey is not an OpenSSH public key line such as \"ssh-ed25519 AAAA… name\": %w", err)
	case len(options) > 0:
		return nil, errors.New("publicKey has options before the key type; remove them")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("publicKey holds more than one key; make one signer of each")
	}
	return pub, allowedSSHKey(pub)
}

func allowedSSHKey(pub ssh.PublicKey) error {
	switch pub.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		if ck, ok := pub.(ssh.CryptoPublicKey); ok {
			if rk, ok := ck.CryptoPublicKey().(*rsa.PublicKey); ok && rk.N.BitLen() >= minRSABits {
				return nil
			}
		}
		return fmt.Errorf("RSA keys need at least %d bits; use ssh-ed25519", minRSABits)
	}
	return fmt.Errorf("key type %s is not accepted; use ssh-ed25519, ecdsa-sha2-nistp*, rsa or a security key (sk-*)", pub.Type())
}

// verifySSH checks an armored SSHSIG signature of payload.
func (r *Keyring) verifySSH(payload, armor []byte) (*key, error) {
	block, rest := pem.Decode(armor)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, &Error{Class: Malformed, Problem: "has an SSH signature that is not one PEM block", Remedy: signAgain}
	}
	sig, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return nil, &Error{Class: Malformed, Problem: "has an SSH signature that cannot be read", Remedy: signAgain, Err: err}
	}
	if sig.Namespace != sshNamespace {
		return nil, &Error{
			Class:   WrongNamespace,
			Problem: fmt.Sprintf("has an SSH signature made for %q, not for %q", sig.Namespace, sshNamespace),
			Remedy:  "sign with git itself: git commit --amend -S, then git push --force-with-lease",
		}
	}
	if err := allowedSSHKey(sig.PublicKey); err != nil {
		return nil, &Error{Class: Unsupported, Problem: "is signed with a key of a kind that is not accepted", Err: err, Remedy: "sign with an ed25519 key"}
	}
	k := r.bySSH(sig.PublicKey)
	if k == nil {
		return nil, unknownKey(ssh.FingerprintSHA256(sig.PublicKey))
	}
	if err := sshsig.Verify(bytes.NewReader(payload), sig, k.ssh, sig.HashAlgorithm, sshNamespace); err != nil {
		return nil, &Error{
			Class:   Mismatch,
			Problem: fmt.Sprintf("carries a signature of %q that was not made for this commit", k.signer.Name),
			Remedy:  signAgain,
			Err:     err,
		}
	}
	return k, nil
}

func (r *Keyring) bySSH(pub ssh.PublicKey) *key {
	wire := pub.Marshal()
	for _, k := range r.keys {
		if k.ssh != nil && bytes.Equal(k.ssh.Marshal(), wire) {
			return k
		}
	}
	return nil
}
