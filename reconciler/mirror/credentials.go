package mirror

import (
	"errors"
	"fmt"
	"os"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/internal/strictyaml"
)

// credentials is the content of the credentials file, a strict YAML mapping.
type credentials struct {
	// Username and Password are for https; with most servers the password is a
	// token and the name is anything.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// BearerToken is for https servers that want one instead.
	BearerToken string `json:"bearerToken,omitempty"`
	// CACertificates are PEM certificates to trust instead of the system's.
	CACertificates string `json:"caCertificates,omitempty"`
	// SSHKey is a private key in OpenSSH format, SSHKeyPassphrase its passphrase.
	SSHKey           string `json:"sshKey,omitempty"`
	SSHKeyPassphrase string `json:"sshKeyPassphrase,omitempty"`
	// KnownHosts are lines as in ~/.ssh/known_hosts; a server may have several.
	KnownHosts string `json:"knownHosts,omitempty"`
}

func readCredentials(path string) (*credentials, error) {
	c := &credentials{}
	if path == "" {
		return c, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("credentials file: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("credentials file %s can be read by others; run: chmod 600 %s", path, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("credentials file: %w", err)
	}
	if _, err := strictyaml.Decode(path, data, c); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *credentials) httpAuth() transport.AuthMethod {
	switch {
	case c.BearerToken != "":
		return &githttp.TokenAuth{Token: c.BearerToken}
	case c.Username != "" || c.Password != "":
		return &githttp.BasicAuth{Username: c.Username, Password: c.Password}
	}
	return nil // a nil *BasicAuth would not be nil to go-git
}

func (c *credentials) sshAuth(ep *transport.Endpoint) (transport.AuthMethod, error) {
	if c.SSHKey == "" || c.KnownHosts == "" {
		return nil, errors.New("ssh needs sshKey and knownHosts in the credentials file; get the server's keys with ssh-keyscan and compare them with what its operator publishes")
	}
	user := ep.User
	if user == "" {
		user = "git"
	}
	auth, err := gitssh.NewPublicKeys(user, []byte(c.SSHKey), c.SSHKeyPassphrase)
	if err != nil {
		return nil, fmt.Errorf("sshKey in the credentials file: %w", err)
	}
	if auth.HostKeyCallback, err = c.hostKeys(); err != nil {
		return nil, err
	}
	return auth, nil
}

// hostKeys accepts the pinned keys only. The library reads files, so the lines
// pass through one that nobody else can open.
func (c *credentials) hostKeys() (ssh.HostKeyCallback, error) {
	f, err := os.CreateTemp("", "bothy-known-hosts-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(c.KnownHosts); err != nil {
		f.Close()
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	callback, err := gitssh.NewKnownHostsCallback(f.Name())
	if err != nil {
		return nil, fmt.Errorf("knownHosts in the credentials file: %w", err)
	}
	return callback, nil
}
