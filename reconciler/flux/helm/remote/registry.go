package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The media types of a chart in a registry.
const (
	chartLayer      types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	chartLayerOlder types.MediaType = "application/tar+gzip"
)

// Registry is a place of charts in an OCI registry.
type Registry struct {
	prefix    string
	access    Access
	options   []name.Option
	auth      authn.Authenticator
	transport *http.Transport
}

// NewRegistry returns the charts below an oci:// URL. A keychain of the
// registry's credentials goes before those of access; insecure allows http.
// Close frees its connections.
func NewRegistry(address string, access Access, keychain authn.Keychain, insecure bool) (*Registry, error) {
	prefix, ok := strings.CutPrefix(address, "oci://")
	if !ok || prefix == "" {
		return nil, fmt.Errorf("registry URL %q: it must begin with oci://", address)
	}
	r := &Registry{prefix: strings.TrimSuffix(prefix, "/"), access: access, transport: access.transport()}
	if insecure {
		r.options = append(r.options, name.Insecure)
	}
	auth, err := r.authenticator(keychain)
	if err != nil {
		return nil, err
	}
	r.auth = auth
	return r, nil
}

func (r *Registry) authenticator(keychain authn.Keychain) (authn.Authenticator, error) {
	if keychain != nil {
		repository, err := name.NewRepository(r.prefix, r.options...)
		if err != nil {
			return nil, fmt.Errorf("registry URL: %w", err)
		}
		auth, err := keychain.Resolve(repository)
		if err != nil {
			return nil, fmt.Errorf("registry credentials: %w", err)
		}
		return auth, nil
	}
	if r.access.Username != "" || r.access.Password != "" {
		return &authn.Basic{Username: r.access.Username, Password: r.access.Password}, nil
	}
	return authn.Anonymous, nil
}

// Close frees idle connections.
func (r *Registry) Close() { r.transport.CloseIdleConnections() }

// Options are what other users of the registry client need to reach the same
// registry, such as the verification of signatures.
func (r *Registry) Options(ctx context.Context) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuth(r.auth), remote.WithTransport(r.transport)}
	if r.access.UserAgent != "" {
		options = append(options, remote.WithUserAgent(r.access.UserAgent))
	}
	return options
}

// Pulled is a chart of a registry.
type Pulled struct {
	// Reference names the manifest by its digest.
	Reference name.Digest
	// Version is the tag, as a semantic version.
	Version string
	image   v1.Image
}

// Resolve finds the newest version of a chart that satisfies a range, without
// fetching its content. The context also bounds [Pulled.Content].
func (r *Registry) Resolve(ctx context.Context, chart, wanted string) (*Pulled, error) {
	repository, err := name.NewRepository(r.prefix+"/"+strings.Trim(chart, "/"), r.options...)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", chart, err)
	}
	version, err := r.pick(ctx, repository, wanted)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", chart, err)
	}
	// A "+" may not stand in a tag; Helm writes "_" for it.
	descriptor, err := remote.Get(repository.Tag(strings.ReplaceAll(version, "+", "_")), r.Options(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", chart, err)
	}
	image, err := descriptor.Image()
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", chart, err)
	}
	return &Pulled{Reference: repository.Digest(descriptor.Digest.String()), Version: version, image: image}, nil
}

func (r *Registry) pick(ctx context.Context, repository name.Repository, wanted string) (string, error) {
	if IsExact(wanted) {
		return wanted, nil
	}
	tags, err := remote.List(repository, r.Options(ctx)...)
	if err != nil {
		return "", fmt.Errorf("list versions: %w", err)
	}
	for i := range tags {
		tags[i] = strings.ReplaceAll(tags[i], "_", "+")
	}
	return Newest(tags, wanted)
}

// Content fetches the archive of the chart. Its digest is the one in the
// manifest, or it is an error.
func (p *Pulled) Content() ([]byte, error) {
	manifest, err := p.image.Manifest()
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", p.Reference, err)
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType != chartLayer && layer.MediaType != chartLayerOlder {
			continue
		}
		if layer.Size > MaxChartSize {
			return nil, fmt.Errorf("chart %s is larger than %d MiB", p.Reference, MaxChartSize>>20)
		}
		return p.read(layer.Digest)
	}
	return nil, fmt.Errorf("%s is no Helm chart: it has no layer of type %s", p.Reference, chartLayer)
}

func (p *Pulled) read(digest v1.Hash) (content []byte, err error) {
	layer, err := p.image.LayerByDigest(digest)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", p.Reference, err)
	}
	body, err := layer.Compressed()
	if err != nil {
		return nil, fmt.Errorf("fetch chart %s: %w", p.Reference, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	// Reading to the end compares the digest.
	content, err = io.ReadAll(io.LimitReader(body, MaxChartSize+1))
	if err != nil {
		return nil, fmt.Errorf("fetch chart %s: %w", p.Reference, err)
	}
	return content, nil
}
