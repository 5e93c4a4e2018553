package registry

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// CredentialsFile reads credentials from a file in the format of docker's
// config.json, which is also that of a Secret of type
// kubernetes.io/dockerconfigjson. Helpers that it names are not run: whoever needs
// them uses the docker configuration of the user.
func CredentialsFile(path string) (authn.Keychain, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("credentials for registries: %w", err)
	}
	var file struct {
		Auths map[string]authn.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("credentials for registries: %s is not in the format of docker's config.json: %w", path, err)
	}
	known := keychain{}
	for host, a := range file.Auths {
		known[hostOf(host)] = a
	}
	return known, nil
}

// keychain are credentials by host.
type keychain map[string]authn.AuthConfig

// Resolve implements authn.Keychain.
func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	a, ok := k[hostOf(r.RegistryStr())]
	if !ok {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(a), nil
}

// hostOf reduces the ways in which a registry is written to one.
func hostOf(text string) string {
	text = strings.TrimPrefix(strings.TrimPrefix(text, "https://"), "http://")
	text, _, _ = strings.Cut(text, "/")
	if text == name.DefaultRegistry || text == "registry-1.docker.io" {
		return "docker.io"
	}
	return text
}
