package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

const (
	// maxManifest bounds a manifest, as the distribution specification advises.
	maxManifest = 4 << 20
	// maxReason bounds what is repeated of an error's text.
	maxReason = 300
)

// manifestTypes is what is asked for.
var manifestTypes = strings.Join([]string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

// Client reads from registries. It may be used by several goroutines.
type Client struct {
	cfg     Config
	limiter *rate.Limiter

	mu    sync.Mutex
	hosts map[string]*host
}

// New returns a client; nothing is opened yet.
func New(cfg Config) *Client {
	cfg.defaults()
	return &Client{cfg: cfg, limiter: newLimiter(cfg.BytesPerSecond), hosts: map[string]*host{}}
}

// host is one place with a repository: a mirror or the registry itself.
type host struct {
	base   *url.URL // up to and including /v2/ and the prefix of a mirror
	client *http.Client
	header http.Header // of each request
}

// Resolve returns the descriptor of a reference by tag or digest, without
// annotations. What no place has is fs.ErrNotExist.
func (c *Client) Resolve(ctx context.Context, reference string) (ocispec.Descriptor, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", reference, err)
	}
	_, desc, err := c.manifest(ctx, ref.Context(), ref.Identifier())
	return desc, err
}

// Manifest returns the content of a manifest of a repository, such as
// docker.io/library/nginx.
func (c *Client) Manifest(ctx context.Context, repository string, desc ocispec.Descriptor) ([]byte, error) {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return nil, err
	}
	data, _, err := c.manifest(ctx, repo, desc.Digest.String())
	return data, err
}

// Document returns the manifest that a repository has by a tag or digest. What no
// place has is fs.ErrNotExist.
func (c *Client) Document(ctx context.Context, repository, reference string) ([]byte, error) {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return nil, err
	}
	data, _, err := c.manifest(ctx, repo, reference)
	return data, err
}

func (c *Client) manifest(ctx context.Context, repo name.Repository, identifier string) (data []byte, desc ocispec.Descriptor, err error) {
	header := http.Header{"Accept": {manifestTypes}}
	err = c.each(ctx, repo, "manifests/"+identifier, header, func(resp *http.Response) error {
		data, err = readBounded(resp.Body, maxManifest)
		if err != nil {
			return err
		}
		desc = ocispec.Descriptor{MediaType: mediaTypeOf(resp.Header, data), Digest: digest.FromBytes(data), Size: int64(len(data))}
		if strings.HasPrefix(identifier, "sha256:") && desc.Digest.String() != identifier {
			return &contentError{fmt.Sprintf("%s sent a manifest that hashes to %s for %s", resp.Request.URL.Host, desc.Digest, identifier)}
		}
		return nil
	})
	return data, desc, err
}

// mediaTypeOf believes the document more than the header: the document is what
// the digest covers.
func mediaTypeOf(h http.Header, data []byte) string {
	var d struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(data, &d) == nil && d.MediaType != "" {
		return d.MediaType
	}
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}

// Referrers lists what refers to a digest: signatures, attestations, lists of
// contents. Where a registry does not know, the tag that stands in for its
// answer is asked for. Nothing is an empty list.
func (c *Client) Referrers(ctx context.Context, repository string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	read := func(resp *http.Response) error {
		data, err := readBounded(resp.Body, maxManifest)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, &index); err != nil {
			return &contentError{fmt.Sprintf("%s sent no list of referrers: %v", resp.Request.URL.Host, err)}
		}
		return nil
	}
	header := http.Header{"Accept": {ocispec.MediaTypeImageIndex}}
	err = c.each(ctx, repo, "referrers/"+subject.String(), header, read)
	if errors.Is(err, fs.ErrNotExist) || isUnknownRequest(err) {
		tag := subject.Algorithm().String() + "-" + subject.Encoded()
		err = c.each(ctx, repo, "manifests/"+tag, header, read)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return index.Manifests, err
}

// isUnknownRequest reports whether a registry is too old to know what is asked.
func isUnknownRequest(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && slices.Contains([]int{http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusNotAcceptable}, status.Code)
}

// each makes a request of the places with a repository, in order, until visit
// takes an answer. The error is the last place's, which is the registry's own.
func (c *Client) each(ctx context.Context, repo name.Repository, path string, header http.Header, visit func(*http.Response) error) error {
	places, err := c.places(repo)
	if err != nil {
		return err
	}
	for _, p := range places {
		if err = c.persist(ctx, func() error { return c.once(ctx, p, repo, path, header, visit) }); err == nil || ctx.Err() != nil {
			return err
		}
		c.cfg.Log.Debug("registry", "place", p.text(), "path", path, "err", err)
	}
	return err
}

// persist repeats what may go better.
func (c *Client) persist(ctx context.Context, try func() error) error {
	for n := 1; ; n++ {
		err := try()
		if err == nil {
			return nil
		}
		again, after := worthAgain(err)
		if !again || n == c.cfg.Attempts || ctx.Err() != nil {
			return err
		}
		c.cfg.Log.Info("registry: trying again", "attempt", n+1, "of", c.cfg.Attempts, "err", err)
		if ended := c.pause(ctx, n, after); ended != nil {
			return errors.Join(err, ended)
		}
	}
}

func (c *Client) once(ctx context.Context, place place, repo name.Repository, path string, header http.Header, visit func(*http.Response) error) error {
	h, err := c.connect(ctx, place, repo)
	if err != nil {
		return err
	}
	resp, err := h.get(ctx, repo, path, header, c.cfg.UserAgent)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return visit(resp)
}

// get makes a request; another status than 200 or 206 is a [StatusError].
func (h *host) get(ctx context.Context, repo name.Repository, path string, header http.Header, agent string) (*http.Response, error) {
	u := *h.base
	u.Path += repo.RepositoryStr() + "/" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header.Clone()
	}
	for k, v := range h.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", agent)
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	return nil, &StatusError{Host: h.base.Host, Code: resp.StatusCode, Text: strings.TrimSpace(string(text)), after: retryAfter(resp.Header)}
}

// place is one of those with a repository: what [Config.Places] says, or the URL of
// a mirror, "" for the registry itself.
type place struct {
	url   string
	given *Place
}

func (p place) text() string {
	if p.given != nil {
		return p.given.URL.String()
	}
	return p.url
}

// places are the mirrors of a registry, and the registry.
func (c *Client) places(repo name.Repository) ([]place, error) {
	var out []place
	if c.cfg.Places != nil {
		given, err := c.cfg.Places(repo.RegistryStr())
		for i := range given {
			out = append(out, place{given: &given[i]})
		}
		if err == nil && len(out) == 0 {
			err = fmt.Errorf("registry %s is not to be asked", repo.RegistryStr())
		}
		return out, err
	}
	r := c.registry(repo)
	for _, m := range r.Mirrors {
		out = append(out, place{url: m})
	}
	if !r.OnlyMirrors {
		out = append(out, place{})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("registry %s has no mirror and is not to be asked itself: give it a mirror", repo.RegistryStr())
	}
	return out, nil
}

// registry finds the settings for a repository; docker.io has two names.
func (c *Client) registry(repo name.Repository) Registry {
	if r, ok := c.cfg.Registries[repo.RegistryStr()]; ok || repo.RegistryStr() != name.DefaultRegistry {
		return r
	}
	return c.cfg.Registries["docker.io"]
}

// connect returns an authenticated client for one place and repository.
func (c *Client) connect(ctx context.Context, place place, repo name.Repository) (*host, error) {
	key := place.text() + " " + repo.Name()
	c.mu.Lock()
	h := c.hosts[key]
	c.mu.Unlock()
	if h != nil {
		return h, nil
	}
	h, err := c.dial(ctx, place, repo)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[key] = h
	return h, nil
}

func (c *Client) dial(ctx context.Context, place place, repo name.Repository) (*host, error) {
	if place.given != nil {
		return c.dialGiven(ctx, place.given, repo)
	}
	settings := c.registry(repo)
	text := place.url
	if text == "" {
		text = "https://" + repo.RegistryStr()
		if settings.PlainHTTP || isLoopback(repo.RegistryStr()) {
			text = "http://" + repo.RegistryStr()
		}
	}
	at, scheme, prefix, err := parsePlace(text)
	if err != nil {
		return nil, &contentError{err.Error()}
	}
	base, err := settings.transport(scheme == "http")
	if err != nil {
		return nil, &contentError{err.Error()}
	}
	// The scope of a token names the repository as this place calls it.
	client, err := c.authenticated(ctx, at, base, strings.TrimPrefix(prefix+repo.RepositoryStr(), "/"))
	if err != nil {
		return nil, err
	}
	return &host{
		base:   &url.URL{Scheme: scheme, Host: at.RegistryStr(), Path: "/v2/" + strings.TrimPrefix(prefix, "/")},
		client: client,
	}, nil
}

// dialGiven goes to a place by its own way.
func (c *Client) dialGiven(ctx context.Context, place *Place, repo name.Repository) (*host, error) {
	var options []name.Option
	if place.URL.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	at, err := name.NewRegistry(place.URL.Host, options...)
	if err != nil {
		return nil, &contentError{err.Error()}
	}
	base := *place.URL
	base.Path = strings.TrimSuffix(base.Path, "/") + "/"
	client, err := c.authenticated(ctx, at, place.Transport, repo.RepositoryStr())
	if err != nil {
		return nil, err
	}
	return &host{base: &base, client: client, header: place.Header}, nil
}

// authenticated is a client that may read a repository.
func (c *Client) authenticated(ctx context.Context, at name.Registry, base http.RoundTripper, repository string) (*http.Client, error) {
	credentials, err := authn.Resolve(ctx, c.cfg.Keychain, at)
	if err != nil {
		return nil, &contentError{fmt.Sprintf("credentials for %s: %v", at.Name(), err)}
	}
	scope := at.Repo(repository).Scope(transport.PullScope)
	authenticated, err := transport.NewWithContext(ctx, at, credentials, base, []string{scope})
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", at.Name(), err)
	}
	return &http.Client{Transport: authenticated}, nil
}

// parsePlace splits the URL of a registry or mirror; the prefix ends with a
// slash or is empty.
func parsePlace(place string) (at name.Registry, scheme, prefix string, err error) {
	u, err := url.Parse(place)
	if err != nil {
		return at, "", "", err
	}
	var options []name.Option
	if u.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	if prefix = strings.Trim(u.Path, "/"); prefix != "" {
		prefix += "/"
	}
	at, err = name.NewRegistry(u.Host, options...)
	return at, u.Scheme, prefix, err
}

func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, &contentError{fmt.Sprintf("the answer is longer than %d MiB", limit>>20)}
	}
	return data, err
}

// contentError is what no other attempt would change.
type contentError struct{ text string }

func (e *contentError) Error() string { return e.text }
