package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func TestCredentialsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"auths": {
		"https://index.docker.io/v1/": {"auth": "YTpi"},
		"registry.example.org:5000": {"username": "c", "password": "d"},
		"token.example.org": {"identitytoken": "e"}}}`)
	known, err := CredentialsFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"docker.io": "a b ", "registry.example.org:5000": "c d ", "token.example.org": "  e", "other.example.org": "  "} {
		r, err := name.NewRegistry(host)
		if err != nil {
			t.Fatal(err)
		}
		a, err := known.Resolve(r)
		if err != nil {
			t.Fatal(err)
		}
		var c *authn.AuthConfig
		if c, err = a.Authorization(); err != nil || strings.Join([]string{c.Username, c.Password, c.IdentityToken}, " ") != want {
			t.Errorf("%s: %+v, %v", host, c, err)
		}
	}
	for _, text := range []string{"{", `{"auths":{"x.org":{"auth":"???"}}}`} {
		write(text)
		if _, err := CredentialsFile(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
