package v1alpha1

import (
	"strings"
	"testing"
	"time"
)

func TestOSImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	head := "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata: {name: site}\nspec:\n  os:\n"
	for text, want := range map[string]string{
		"    image: registry.example.org/bothy/os@" + digest + "\n":                                             "",
		"    image: registry.example.org:5000/os:v1@" + digest + "\n    healthTimeout: 15m\n":                   "",
		"    image: registry.example.org/os:v1\n":                                                               "spec.os.image",
		"    image: os@" + digest + "\n":                                                                        "spec.os.image",
		"    image: registry.example.org/os@sha256:12\n":                                                        "spec.os.image",
		"    healthTimeout: 1s\n":                                                                               "spec.os.healthTimeout",
		"    registry: {mirrors: [mirror.example.org]}\n":                                                       "spec.os.registry.mirrors[0]",
		"    registry: {caCertificates: none}\n":                                                                "spec.os.registry.caCertificates",
		"    registry: {credentialsFile: registry.json}\n":                                                      "spec.os.registry.credentialsFile",
		"    registry: {plainHTTP: true, credentialsFile: /a, mirrors: ['https://mirror.example.org/bothy']}\n": "",
		"    imagee: x\n": "imagee",
	} {
		c, err := DecodeCluster("cluster.yaml", []byte(head+text))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v does not name %s", text, err, want)
		case want == "" && strings.Contains(text, "image") && c.Spec.OS.Digest() != digest:
			t.Errorf("%s: the digest is %q", text, c.Spec.OS.Digest())
		}
	}
	if d := NewCluster("site").Spec.OS.HealthTimeout.Duration; d != 10*time.Minute {
		t.Errorf("the default is %s", d)
	}
}
