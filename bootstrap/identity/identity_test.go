package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestIdentityIsMadeOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, Dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	again, err := Open(dir)
	if err != nil || again.Fingerprint() != first.Fingerprint() {
		t.Errorf("became %v, %v", again, err)
	}
	other, err := Open(t.TempDir())
	if err != nil || other.Fingerprint() == first.Fingerprint() {
		t.Errorf("two machines have one identity: %v", err)
	}
}

func TestDamagedIdentityIsNotReplaced(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "text": "hello", "truncated": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, Dir, keyFile)
			if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), file) {
				t.Errorf("error %v", err)
			}
			if kept, _ := os.ReadFile(file); string(kept) != content {
				t.Error("the file was changed")
			}
		})
	}
}

// ssh-keygen and we call a key the same.
func TestFingerprintIsThatOfOpenSSH(t *testing.T) {
	key := ed25519.NewKeyFromSeed([]byte("an identity for tests, 32 bytes!")).Public().(ed25519.PublicKey)
	public, err := ssh.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if want, got := ssh.FingerprintSHA256(public), Fingerprint(key); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPeer(t *testing.T) {
	id, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	own, err := id.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Peer(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}); err != nil || got != id.Fingerprint() {
		t.Errorf("%s, %v; want %s", got, err, id.Fingerprint())
	}
	for name, state := range map[string]*tls.ConnectionState{
		"nobody":   {},
		"no TLS":   nil,
		"a chain":  {PeerCertificates: []*x509.Certificate{cert, cert}},
		"not ours": {PeerCertificates: []*x509.Certificate{{PublicKey: "rsa"}}},
	} {
		if got, err := Peer(state); err == nil {
			t.Errorf("%s: taken for %s", name, got)
		}
	}
}
