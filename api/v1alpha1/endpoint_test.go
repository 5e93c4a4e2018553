package v1alpha1

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

const endpointHead = `apiVersion: bothy.dev/v1alpha1
kind: BootConfig
repository: {url: "file:///srv/site.git", path: clusters/a}
trust: {none: true}
`

func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

func TestEndpoint(t *testing.T) {
	b, err := DecodeBootConfig("boot.yaml", []byte(endpointHead))
	if err != nil || b.Endpoint != nil || b.Endpoint.Pushable() {
		t.Fatalf("an endpoint nobody asked for: %+v %v", b.Endpoint, err)
	}
	b, err = DecodeBootConfig("boot.yaml", []byte(endpointHead+"endpoint: {}\n"))
	if err != nil || b.Endpoint.Address != "0.0.0.0:9443" || b.Endpoint.Pushable() {
		t.Fatalf("%+v %v", b.Endpoint, err)
	}
	sum := strings.Repeat("0a", 32)
	full := "endpoint:\n  address: \"[::1]:9444\"\n  clientCertificateAuthorities: |\n" + indent(authority(t)+authority(t)) +
		"  tokens: [{name: ci, sha256: " + sum + "}]\n  webhooks: [{type: gitea, secretFile: /etc/hook}]\n"
	if b, err = DecodeBootConfig("boot.yaml", []byte(endpointHead+full)); err != nil || !b.Endpoint.Pushable() || b.Endpoint.Address != "[::1]:9444" {
		t.Fatalf("%+v %v", b, err)
	}
	for field, text := range map[string]string{
		"endpoint.address":                      "endpoint: {address: nowhere}\n",
		"endpoint.address: \"70000\"":           "endpoint: {address: \"0.0.0.0:70000\"}\n",
		"endpoint.keyFile":                      "endpoint: {certificateFile: /c.pem}\n",
		"endpoint.certificateFile":              "endpoint: {keyFile: /k.pem}\n",
		"endpoint.clientCertificateAuthorities": "endpoint: {clientCertificateAuthorities: none}\n",
		"endpoint.tokens[0].name":               "endpoint: {tokens: [{name: \"\", sha256: " + sum + "}]}\n",
		"endpoint.tokens[1].name":               "endpoint: {tokens: [{name: a, sha256: " + sum + "}, {name: a, sha256: " + sum + "}]}\n",
		"endpoint.tokens[0].sha256":             "endpoint: {tokens: [{name: a, sha256: secret}]}\n",
		"endpoint.webhooks[0].type":             "endpoint: {webhooks: [{type: svn, secretFile: /s}]}\n",
		"endpoint.webhooks[0].secretFile":       "endpoint: {webhooks: [{type: github}]}\n",
		"tokenz":                                "endpoint: {tokenz: []}\n",
	} {
		if _, err := DecodeBootConfig("boot.yaml", []byte(endpointHead+text)); err == nil || !strings.Contains(err.Error(), field) || !strings.HasPrefix(err.Error(), "boot.yaml:5: ") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestAPrivateKeyIsNoAuthority(t *testing.T) {
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}))
	if _, err := ParseCertificates(authority(t) + key); err == nil {
		t.Error("accepted a private key among the authorities")
	}
}
