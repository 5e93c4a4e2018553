package mirror

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// responseTimeout bounds the wait for a server's answer, not the transfer.
const responseTimeout = 30 * time.Second

// display is the URL without a password, for messages.
func (r Remote) display() string {
	if u, err := url.Parse(r.URL); err == nil && u.User != nil {
		return u.Redacted()
	}
	return r.URL
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

func connect(ctx context.Context, r Remote) (source, error) {
	if path, ok := r.localPath(); ok {
		return openLocal(path)
	}
	endpoint, err := transport.NewEndpoint(r.URL)
	if err != nil {
		return nil, fmt.Errorf("understand URL: %w", err)
	}
	creds, err := readCredentials(r.CredentialsFile)
	if err != nil {
		return nil, err
	}
	var client transport.Transport
	var auth transport.AuthMethod
	switch endpoint.Protocol {
	case "https", "http":
		if endpoint.Protocol == "http" && !isLoopback(endpoint.Host) {
			return nil, errors.New("http without TLS is accepted on loopback addresses only; use https, ssh or file")
		}
		client, err = httpClient(creds)
		auth = creds.httpAuth()
	case "ssh":
		client = gitssh.NewClient(nil)
		auth, err = creds.sshAuth(endpoint)
	default:
		err = fmt.Errorf("unknown scheme %q; use https, ssh, file or an absolute path", endpoint.Protocol)
	}
	if err != nil {
		return nil, err
	}
	session, err := client.NewUploadPackSession(endpoint, auth)
	if err != nil {
		return nil, err
	}
	return &network{session: session}, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func httpClient(c *credentials) (transport.Transport, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACertificates != "" {
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM([]byte(c.CACertificates)) {
			return nil, errors.New("caCertificates in the credentials file holds no PEM certificate")
		}
	}
	return githttp.NewClient(&http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   responseTimeout,
		ResponseHeaderTimeout: responseTimeout,
		DisableKeepAlives:     true,
	}}), nil
}

// network is a repository behind https or ssh.
type network struct {
	session    transport.UploadPackSession
	advertised *packp.AdvRefs
}

func (n *network) branches(ctx context.Context) (map[string]plumbing.Hash, error) {
	refs, err := n.session.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n.advertised = refs
	return branchesOf(refs.References), nil
}

func branchesOf(refs map[string]plumbing.Hash) map[string]plumbing.Hash {
	heads := map[string]plumbing.Hash{}
	for name, id := range refs {
		if branch, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			heads[branch] = id
		}
	}
	return heads
}

func (n *network) pack(ctx context.Context, m *Mirror, want plumbing.Hash, haves []plumbing.Hash) error {
	req := packp.NewUploadPackRequestFromCapabilities(n.advertised.Capabilities)
	req.Wants = []plumbing.Hash{want}
	req.Haves = haves
	caps := n.advertised.Capabilities
	for _, c := range []capability.Capability{capability.Sideband64k, capability.NoProgress} {
		if caps.Supports(c) {
			if err := req.Capabilities.Set(c); err != nil {
				return err
			}
		}
	}
	resp, err := n.session.UploadPack(ctx, req)
	if err != nil {
		return err
	}
	defer resp.Close()
	if len(resp.Shallows) > 0 {
		return errors.New("it is a shallow clone, whose history cannot be verified; point to the full repository")
	}
	var r io.Reader = resp
	if req.Capabilities.Supports(capability.Sideband64k) {
		r = sideband.NewDemuxer(sideband.Sideband64k, resp)
	}
	return m.ingest(r)
}

func (n *network) close() { n.session.Close() }

// local is a repository on this machine. It is read without git's help: no
// program is started and no configuration of it takes effect.
type local struct {
	storage *filesystem.Storage
}

func openLocal(path string) (source, error) {
	dir := path
	if st, err := os.Stat(filepath.Join(path, ".git")); err == nil {
		if !st.IsDir() {
			return nil, fmt.Errorf("%s is a linked work tree; give the path of the repository itself", path)
		}
		dir = filepath.Join(path, ".git")
	}
	if _, err := os.Stat(filepath.Join(dir, "objects")); err != nil {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		return nil, transport.ErrRepositoryNotFound
	}
	if _, err := os.Stat(filepath.Join(dir, "shallow")); err == nil {
		return nil, errors.New("it is a shallow clone, whose history cannot be verified; point to the full repository")
	}
	storage := filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(cacheSize), filesystem.Options{})
	if cfg, err := storage.Config(); err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	} else if format := cfg.Raw.Section("extensions").Option("objectformat"); format != "" && format != "sha1" {
		return nil, fmt.Errorf("its object format is %s, which is not supported yet; use a repository with SHA-1 object ids", format)
	}
	return &local{storage: storage}, nil
}

func (l *local) branches(context.Context) (map[string]plumbing.Hash, error) {
	refs, err := l.storage.IterReferences()
	if err != nil {
		return nil, err
	}
	heads := map[string]plumbing.Hash{}
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference && ref.Name().IsBranch() {
			heads[ref.Name().Short()] = ref.Hash()
		}
		return nil
	})
	return heads, err
}

func (l *local) pack(ctx context.Context, m *Mirror, want plumbing.Hash, _ []plumbing.Hash) error {
	ids, err := l.missing(ctx, m, want)
	if err != nil || len(ids) == 0 {
		return err
	}
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		// No deltas: finding them costs more than copying on the same disk.
		_, err := packfile.NewEncoder(w, l.storage, false).Encode(ids, 0)
		w.CloseWithError(err)
	}()
	return m.ingest(r)
}

// missing lists the objects that want needs and the mirror lacks. A commit that
// the mirror has is complete there, because packs are taken in whole.
func (l *local) missing(ctx context.Context, m *Mirror, want plumbing.Hash) ([]plumbing.Hash, error) {
	var out []plumbing.Hash
	seen := map[plumbing.Hash]bool{}
	var total int64
	add := func(id plumbing.Hash) (bool, error) {
		if seen[id] || m.Has(id.String()) {
			return false, nil
		}
		seen[id] = true
		out = append(out, id)
		size, err := l.storage.EncodedObjectSize(id)
		if err != nil {
			return false, fmt.Errorf("object %s: %w", short(id.String()), err)
		}
		if err := m.checkSize(size); err != nil {
			return false, err
		}
		if total += size; total > m.limits.Objects {
			return false, fmt.Errorf("%w: the objects to fetch are more than %d MiB", ErrTooLarge, m.limits.Objects>>20)
		}
		return true, ctx.Err()
	}
	var tree func(id plumbing.Hash) error
	tree = func(id plumbing.Hash) error {
		isNew, err := add(id)
		if err != nil || !isNew {
			return err
		}
		t, err := object.GetTree(l.storage, id)
		if err != nil {
			return fmt.Errorf("tree %s: %w", short(id.String()), err)
		}
		for _, e := range t.Entries {
			switch e.Mode {
			case filemode.Dir:
				err = tree(e.Hash)
			case filemode.Submodule:
				continue
			default:
				_, err = add(e.Hash)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for queue := []plumbing.Hash{want}; len(queue) > 0; {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		isNew, err := add(id)
		if err != nil {
			return nil, err
		}
		if !isNew {
			continue
		}
		c, err := object.GetCommit(l.storage, id)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", short(id.String()), err)
		}
		if err := tree(c.TreeHash); err != nil {
			return nil, err
		}
		queue = append(queue, c.ParentHashes...)
	}
	return out, nil
}

func (l *local) close() { l.storage.Close() }

// remedyFor says what an operator can do about an error of connect or pack.
func remedyFor(r Remote, err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, transport.ErrRepositoryNotFound):
		return "check repository.url in the boot configuration, or create the repository (bothy repo init)"
	case errors.Is(err, fs.ErrPermission):
		return "make the repository readable for the user that runs bothy"
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return "check repository.credentialsFile in the boot configuration"
	case errors.Is(err, ErrTooLarge):
		return "remove the large files from the history, or keep them outside this repository"
	case errors.As(err, &certificate):
		return "put the server's CA into caCertificates of the credentials file"
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
