package image

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// newKeys makes a key and a certificate, and the files with them.
func newKeys(t *testing.T) (key, certificate string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "owner"},
		NotBefore: time.Unix(1.7e9, 0), NotAfter: time.Unix(4e9, 0), BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, certificate = filepath.Join(dir, "db.key"), filepath.Join(dir, "db.pem")
	for file, block := range map[string]*pem.Block{
		key:         {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)},
		certificate: {Type: "CERTIFICATE", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, certificate
}

// stub is a program that can be signed.
func stub(t *testing.T) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cache, stubPackage+"_*/usr/lib/systemd/boot/efi/linuxx64.efi.stub"))
	if err != nil || len(files) == 0 {
		t.Skip("the packages of Debian are not here: `make image` fetches them")
	}
	uki, err := makeUKI(read(t, files[0]), []section{{".cmdline", []byte("hello")}, {".linux", bytes.Repeat([]byte{1}, 5000)}})
	if err != nil {
		t.Fatal(err)
	}
	return uki
}

func TestOthersTrustWhatIsSigned(t *testing.T) {
	program := stub(t)
	key, certificate := newKeys(t)
	keys, err := LoadKeys(key, certificate)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1795000000, 0)
	signed, err := keys.Sign(program, at)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := keys.Sign(program, at); err != nil || !bytes.Equal(signed, again) {
		t.Errorf("signing again gives other bytes: %v", err)
	}
	if _, err := keys.Sign(signed, at); err == nil {
		t.Error("what is signed is signed again")
	}
	sbverify, err := exec.LookPath("sbverify")
	if err != nil {
		t.Skip("sbverify is not installed")
	}
	verify := func(program []byte, certificate string) error {
		file := filepath.Join(t.TempDir(), "program.efi")
		if err := os.WriteFile(file, program, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(sbverify, "--cert", certificate, file).CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := verify(signed, certificate); err != nil {
		t.Errorf("the signature is not good: %v", err)
	}
	_, stranger := newKeys(t)
	if verify(signed, stranger) == nil {
		t.Error("a stranger's certificate is good enough")
	}
	signed[len(program)-600] ^= 1
	if verify(signed, certificate) == nil {
		t.Error("a changed program is good enough")
	}
}

func TestKeysThatFirmwareDoesNotKnowAreRefused(t *testing.T) {
	key, _ := newKeys(t)
	_, other := newKeys(t)
	if _, err := LoadKeys(key, other); err == nil {
		t.Error("a certificate of another key is accepted")
	}
	if _, err := LoadKeys(filepath.Join(t.TempDir(), "none"), other); err == nil {
		t.Error("no key is accepted")
	}
}
