package remote

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/repo/v1"
)

// Limits of what is fetched, in bytes.
const (
	MaxIndexSize = 50 << 20
	MaxChartSize = 20 << 20
)

// ErrDigest is in the chain of errors about content that is not what was
// promised.
var ErrDigest = errors.New("content does not have the digest that it should have")

// Access is how a repository or registry is reached.
type Access struct {
	// Username and Password are sent if either is set.
	Username, Password string
	// TLS holds certificates; nil means the system's.
	TLS *tls.Config
	// Timeout of one request with its body; zero means a minute.
	Timeout time.Duration
	// UserAgent names us.
	UserAgent string
}

func (a Access) timeout() time.Duration {
	if a.Timeout <= 0 {
		return time.Minute
	}
	return a.Timeout
}

func (a Access) transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if a.TLS != nil {
		t.TLSClientConfig = a.TLS.Clone()
	}
	return t
}

// Repository is a chart repository on an HTTP server.
type Repository struct {
	base   *url.URL
	access Access
	// everywhere sends the credentials to other hosts as well.
	everywhere bool
	client     *http.Client
}

// NewRepository returns the repository at an http or https URL. With
// passCredentials, the credentials are also sent to the hosts that its index
// names. Close frees its connections.
func NewRepository(address string, access Access, passCredentials bool) (*Repository, error) {
	base, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("repository URL: %w", withoutURL(err))
	}
	if base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("repository URL %s: the scheme must be http or https", base.Redacted())
	}
	if !strings.HasSuffix(base.Path, "/") {
		base.Path += "/"
	}
	return &Repository{
		base: base, access: access, everywhere: passCredentials,
		client: &http.Client{Transport: access.transport(), Timeout: access.timeout()},
	}, nil
}

// Close frees idle connections.
func (r *Repository) Close() { r.client.CloseIdleConnections() }

// Validators are what a server named to recognise unchanged content by.
type Validators struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
}

// FetchIndex writes the index to w. If the server says that it is still the one
// that known belongs to, nothing is written and unchanged is true.
func (r *Repository) FetchIndex(ctx context.Context, known Validators, w io.Writer) (now Validators, unchanged bool, err error) {
	request, err := r.request(ctx, r.base.JoinPath("index.yaml"))
	if err != nil {
		return Validators{}, false, err
	}
	if known.ETag != "" {
		request.Header.Set("If-None-Match", known.ETag)
	}
	if known.LastModified != "" {
		request.Header.Set("If-Modified-Since", known.LastModified)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return Validators{}, false, fmt.Errorf("fetch index: %w", withoutURL(err))
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotModified && known != (Validators{}) {
		return known, true, nil
	}
	if err := answered(response); err != nil {
		return Validators{}, false, fmt.Errorf("fetch index: %w", err)
	}
	if err := copyBounded(w, response.Body, MaxIndexSize); err != nil {
		return Validators{}, false, fmt.Errorf("fetch index: %w", err)
	}
	now = Validators{ETag: response.Header.Get("ETag"), LastModified: response.Header.Get("Last-Modified")}
	return now, false, nil
}

// FetchChart gets the archive of a chart that the index names and checks its
// digest. An index that names none is taken at its word.
func (r *Repository) FetchChart(ctx context.Context, version *repo.ChartVersion) ([]byte, error) {
	var problems []error
	for _, address := range version.URLs {
		content, err := r.fetchFrom(ctx, address)
		if err == nil {
			if err := checkDigest(content, version.Digest); err != nil {
				return nil, fmt.Errorf("chart %s %s: %w", version.Name, version.Version, err)
			}
			return content, nil
		}
		problems = append(problems, err)
	}
	return nil, fmt.Errorf("fetch chart %s %s: %w", version.Name, version.Version, errors.Join(problems...))
}

func (r *Repository) fetchFrom(ctx context.Context, address string) ([]byte, error) {
	reference, err := url.Parse(address)
	if err != nil {
		return nil, withoutURL(err)
	}
	target := r.base.ResolveReference(reference)
	if target.Scheme != "http" && target.Scheme != "https" {
		return nil, fmt.Errorf("the index names %s, which is neither http nor https", target.Redacted())
	}
	// Some repositories authenticate by query parameters, which relative
	// references are meant to inherit.
	if target.RawQuery == "" && !reference.IsAbs() {
		target.RawQuery = r.base.RawQuery
	}
	request, err := r.request(ctx, target)
	if err != nil {
		return nil, err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer response.Body.Close()
	if err := answered(response); err != nil {
		return nil, err
	}
	var content strings.Builder
	if err := copyBounded(&content, response.Body, MaxChartSize); err != nil {
		return nil, err
	}
	return []byte(content.String()), nil
}

func (r *Repository) request(ctx context.Context, target *url.URL) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	if r.access.UserAgent != "" {
		request.Header.Set("User-Agent", r.access.UserAgent)
	}
	hasCredentials := r.access.Username != "" || r.access.Password != ""
	if hasCredentials && (r.everywhere || sameOrigin(r.base, target)) {
		request.SetBasicAuth(r.access.Username, r.access.Password)
	}
	return request, nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

func answered(response *http.Response) error {
	if response.StatusCode == http.StatusOK {
		return nil
	}
	where := response.Request.URL
	plain := url.URL{Scheme: where.Scheme, Host: where.Host, Path: where.Path}
	return fmt.Errorf("%s answered %s", plain.String(), response.Status)
}

// withoutURL drops the address from an error of net/http and net/url, which may
// carry credentials.
func withoutURL(err error) error {
	var problem *url.Error
	if errors.As(err, &problem) {
		return problem.Err
	}
	return err
}

func copyBounded(w io.Writer, r io.Reader, limit int64) error {
	n, err := io.Copy(w, io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if n > limit {
		return fmt.Errorf("the answer is larger than %d MiB", limit>>20)
	}
	return nil
}

// checkDigest compares content with a digest in hexadecimal, with or without its
// algorithm.
func checkDigest(content []byte, promised string) error {
	promised = strings.TrimPrefix(strings.ToLower(promised), "sha256:")
	if promised == "" {
		return nil
	}
	sum := sha256.Sum256(content)
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(promised)) != 1 {
		return fmt.Errorf("%w: the index says sha256:%s, it is sha256:%x; "+
			"the repository was changed under us or by somebody else", ErrDigest, promised, sum)
	}
	return nil
}
