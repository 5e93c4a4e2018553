package mirror

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/internal/strictyaml"
)

// Credentials are what a server wants to see, and what it must show. As a file
// they are a strict YAML mapping.
type Credentials struct {
	// Username and Password are for https; with most servers the password is a
	// token and the name is anything.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// BearerToken is for https servers that want one instead.
	BearerToken string `json:"bearerToken,omitempty"`
	// CACertificates are PEM certificates to trust instead of the system's.
	CACertificates string `json:"caCertificates,omitempty"`
	// ClientCertificate and ClientKey are PEM, for https servers that want
	// mutual TLS.
	ClientCertificate string `json:"clientCertificate,omitempty"`
	ClientKey         string `json:"clientKey,omitempty"`
	// SSHKey is one private key or several in PEM, tried in their order;
	// SSHKeyPassphrase is their passphrase.
	SSHKey           string `json:"sshKey,omitempty"`
	SSHKeyPassphrase string `json:"sshKeyPassphrase,omitempty"`
	// KnownHosts are lines as in ~/.ssh/known_hosts; a server may have several.
	KnownHosts string `json:"knownHosts,omitempty"`
	// Proxy is the URL of a proxy, http://, https:// or socks5://; for ssh only
	// the last. It may hold a user and a password. The default for https is that
	// of the environment.
	Proxy string `json:"proxy,omitempty"`
}

// forHTTP reports whether there is anything in them that another https server
// must not see.
func (c *Credentials) forHTTP() bool {
	return c.BearerToken != "" || c.Username != "" || c.Password != "" || c.ClientKey != ""
}

func readCredentials(path string) (*Credentials, error) {
	c := &Credentials{}
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

// signers returns the private keys.
func (c *Credentials) signers() ([]ssh.Signer, error) {
	var out []ssh.Signer
	for rest := []byte(c.SSHKey); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := c.parseKey(pem.EncodeToMemory(block))
		if err != nil {
			return nil, fmt.Errorf("sshKey in the credentials: %w", err)
		}
		out = append(out, key)
	}
	if len(out) == 0 {
		return nil, errors.New("sshKey in the credentials holds no private key in PEM")
	}
	return out, nil
}

func (c *Credentials) parseKey(text []byte) (ssh.Signer, error) {
	key, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) && c.SSHKeyPassphrase != "" {
		return ssh.ParsePrivateKeyWithPassphrase(text, []byte(c.SSHKeyPassphrase))
	}
	return key, err
}

// hostKeys reads the pinned keys. The library reads files, so the lines pass
// through one that nobody else can open.
func (c *Credentials) hostKeys() (*knownhosts.HostKeyDB, error) {
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
	db, err := knownhosts.NewDB(f.Name())
	if err != nil {
		return nil, fmt.Errorf("knownHosts in the credentials: %w", err)
	}
	return db, nil
}
