package mirror

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Remote is where a commit is fetched from.
type Remote struct {
	// URL is https://, http:// (loopback only), ssh://, user@host:path, file://,
	// an absolute path, or bundle:///path of a bundle file.
	URL string
	// Branch is short for Reference{Branch: …}.
	Branch string
	// Reference is what is fetched if Branch is empty.
	Reference Reference
	// CredentialsFile is read at each fetch, so that it can be rotated.
	CredentialsFile string
	// Credentials are used instead of a file if they are not nil.
	Credentials *Credentials
	// Full fetches the files of older commits as well, even if the server lets
	// them be left out. A mirror that others clone from needs them.
	Full bool
	// ConfiguredIn names the object that holds these settings, such as
	// "GitRepository apps/podinfo", for messages. Empty is the boot
	// configuration.
	ConfiguredIn string
}

func (r Remote) reference() Reference {
	if r.Branch != "" {
		return Reference{Branch: r.Branch}
	}
	if r.Reference.onlyBranch() || r.Reference != (Reference{}) {
		return r.Reference
	}
	return Reference{Branch: r.Reference.branch()}
}

// setting says where an operator finds a setting.
func (r Remote) setting(name string) string {
	if r.ConfiguredIn == "" {
		return "repository." + name + " in the boot configuration"
	}
	switch name {
	case "branch":
		name = "ref"
	case "credentialsFile":
		name = "secretRef"
	}
	return "spec." + name + " of " + r.ConfiguredIn
}

// display is the URL without a password, for messages.
func (r Remote) display() string { return Redacted(r.URL) }

// Redacted is a repository's URL without the password, for messages.
func Redacted(repository string) string {
	if u, err := url.Parse(repository); err == nil && u.User != nil {
		return u.Redacted()
	}
	return repository
}

// localPath returns the directory of a file:// URL or an absolute path.
func (r Remote) localPath() (string, bool) {
	if filepath.IsAbs(r.URL) {
		return filepath.Clean(r.URL), true
	}
	if rest, ok := strings.CutPrefix(r.URL, "file://"); ok && filepath.IsAbs(rest) {
		return filepath.Clean(rest), true
	}
	return "", false
}

func connect(ctx context.Context, r Remote, watch *watchdog) (source, error) {
	if path, ok := r.bundlePath(); ok {
		return openBundle(path, watch)
	}
	if path, ok := r.localPath(); ok {
		return openLocal(path)
	}
	endpoint, err := transport.NewEndpoint(r.URL)
	if err != nil {
		return nil, fmt.Errorf("understand URL: %w", err)
	}
	creds := r.Credentials
	if creds == nil {
		if creds, err = readCredentials(r.CredentialsFile); err != nil {
			return nil, err
		}
	}
	switch endpoint.Protocol {
	case "https", "http":
		if endpoint.Protocol == "http" && !isLoopback(endpoint.Host) {
			return nil, errors.New("http without TLS is accepted on loopback addresses only; use https, ssh or file")
		}
		return openHTTP(r.URL, creds, watch)
	case "ssh":
		return openSSH(ctx, endpoint, creds, watch)
	}
	return nil, fmt.Errorf("unknown scheme %q; use https, ssh, file, bundle or an absolute path", endpoint.Protocol)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// remedyFor says what an operator can do about an error of a fetch.
func remedyFor(r Remote, err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var gap *incomplete
	switch {
	case errors.Is(err, ErrNoBundle):
		return "plug in the medium with the bundle, or put the file there"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the file system of the state directory"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, transport.ErrRepositoryNotFound):
		return "check " + r.setting("url") + ", or create the repository (bothy repo init)"
	case errors.Is(err, fs.ErrPermission):
		return "make the repository readable for the user that runs bothy"
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return "check " + r.setting("credentialsFile") + ": the token or key may have expired"
	case errors.Is(err, errHostKey):
		return "if its operator announced a new key, add it to knownHosts of the credentials file (keep the old one until the change is done); if not, somebody is between this machine and the server"
	case errors.Is(err, ErrTooLarge):
		return "remove the large files from the history, or keep them outside this repository"
	case errors.As(err, &authority), errors.As(err, &certificate):
		return "put the server's CA into caCertificates of the credentials file; if the server had another certificate before, make sure that nobody is between"
	case errors.Is(err, ErrStalled):
		return "check the server's load and the link to it"
	case errors.As(err, &gap):
		return "check the repository on the server with git fsck"
	case errors.As(err, &dns):
		return "check the host name and the machine's name servers"
	case errors.As(err, &op), errors.Is(err, context.DeadlineExceeded):
		return "check that the server runs and that the machine's network reaches it"
	}
	if _, local := r.localPath(); local {
		return "check the repository with git fsck"
	}
	return ""
}
