package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// Dir is the directory of the identity in a state directory.
const Dir = "machine"

const keyFile = "identity.pem"

// Identity is a machine's key.
type Identity struct {
	key ed25519.PrivateKey
}

// Open reads the identity in a state directory, or makes it if there is none.
func Open(stateDir string) (*Identity, error) {
	dir := filepath.Join(stateDir, Dir)
	file := filepath.Join(dir, keyFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the machine's identity: %w", err)
	}
	key, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("the machine's identity in %s is damaged: %w; restore it from a backup, or remove it and commit the new one to the Machine object", file, err)
	}
	return &Identity{key: key}, nil
}

func create(dir, file string) (*Identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the machine's identity: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the machine's identity: %w", err)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("keep the machine's identity: %w", err)
	}
	return &Identity{key: key}, nil
}

func decode(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("it holds no PEM private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it holds a key of type %T, not ed25519", parsed)
	}
	return key, nil
}

// Fingerprint is what a Machine object calls the identity.
func (i *Identity) Fingerprint() string {
	return Fingerprint(i.key.Public().(ed25519.PublicKey))
}

// Fingerprint is the SHA-256 of a key as OpenSSH encodes and prints it.
func Fingerprint(key ed25519.PublicKey) string {
	const kind = "ssh-ed25519"
	var blob []byte
	for _, part := range [][]byte{[]byte(kind), key} {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(part)))
		blob = append(blob, part...)
	}
	sum := sha256.Sum256(blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// certificateLife only has to outlive the process: nobody looks at it.
const certificateLife = 10 * 365 * 24 * time.Hour

// Certificate is the identity in the form that TLS wants.
func (i *Identity) Certificate() (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bothy machine"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Now().Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, i.key.Public(), i.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign the machine's own certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.key}, nil
}

// Peer is the fingerprint of whoever is at the other end. TLS has made sure that it holds the key;
// whether it is who it should be is for the caller to say.
func Peer(state *tls.ConnectionState) (string, error) {
	if state == nil || len(state.PeerCertificates) != 1 {
		return "", errors.New("the other side did not present exactly one certificate")
	}
	key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("the other side's key is of type %T; the identity of a machine is ed25519", state.PeerCertificates[0].PublicKey)
	}
	return Fingerprint(key), nil
}
