package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/fluxcd/pkg/runtime/secrets"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// maxAnswer bounds an answer of a registry, in bytes.
const maxAnswer = maxContent + 1<<20

// access is how a registry is reached.
type access struct {
	repository name.Repository
	options    []remote.Option
	transport  *http.Transport
}

// close frees idle connections.
func (a *access) close() { a.transport.CloseIdleConnections() }

// with returns the options for one operation.
func (a *access) with(ctx context.Context) []remote.Option {
	return append(a.options[:len(a.options):len(a.options)], remote.WithContext(ctx))
}

// access returns how the object's registry is reached, with the credentials that
// the Secrets hold now.
func (a *attempt) access(ctx context.Context) (*access, error) {
	repository, err := a.repository()
	if err != nil {
		return nil, err
	}
	transport, err := a.transport(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := a.keychain(ctx)
	if err != nil {
		return nil, err
	}
	return &access{repository: repository, transport: transport, options: []remote.Option{
		remote.WithAuthFromKeychain(keys),
		remote.WithTransport(&bounded{transport}),
		remote.WithUserAgent("bothy/" + a.env.Version),
		// What fails is tried again by the controller, which says so meanwhile.
		remote.WithRetryBackoff(remote.Backoff{Duration: 1, Steps: 1}),
	}}, nil
}

func (a *attempt) repository() (name.Repository, error) {
	var options []name.Option
	if a.obj.Spec.Insecure {
		options = append(options, name.Insecure)
	}
	path, ok := strings.CutPrefix(a.obj.Spec.URL, "oci://")
	if !ok {
		return name.Repository{}, fmt.Errorf("spec.url %q does not begin with oci://", a.obj.Spec.URL)
	}
	repository, err := name.NewRepository(strings.TrimSuffix(path, "/"), options...)
	if err != nil {
		return name.Repository{}, fmt.Errorf("spec.url %q is not a repository of a registry; tags and digests belong into spec.ref: %w", a.obj.Spec.URL, err)
	}
	return repository, nil
}

func (a *attempt) transport(ctx context.Context) (*http.Transport, error) {
	transport := remote.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1
	if ref := a.obj.Spec.CertSecretRef; ref != nil {
		secret, err := a.secret(ctx, ref.Name)
		if err != nil {
			return nil, err
		}
		if transport.TLSClientConfig, err = secrets.TLSConfigFromSecret(ctx, secret); err != nil {
			return nil, fmt.Errorf("certificates in Secret '%s/%s': %w", secret.Namespace, secret.Name, err)
		}
	}
	if ref := a.obj.Spec.ProxySecretRef; ref != nil {
		secret, err := a.secret(ctx, ref.Name)
		if err != nil {
			return nil, err
		}
		proxy, err := secrets.ProxyURLFromSecret(ctx, secret)
		if err != nil {
			return nil, fmt.Errorf("proxy in Secret '%s/%s': %w", secret.Namespace, secret.Name, err)
		}
		transport.Proxy = func(*http.Request) (*url.URL, error) { return proxy, nil }
	}
	return transport, nil
}

// keychain has the credentials of the Secret and of the ServiceAccount's pull
// secrets, those of the Secret first.
func (a *attempt) keychain(ctx context.Context) (authn.Keychain, error) {
	var out keychain
	if ref := a.obj.Spec.SecretRef; ref != nil {
		secret, err := a.secret(ctx, ref.Name)
		if err != nil {
			return nil, err
		}
		if err := out.add(secret); err != nil {
			return nil, err
		}
	}
	if account := a.obj.Spec.ServiceAccountName; account != "" {
		pull, err := secrets.PullSecretsFromServiceAccountRef(ctx, a.client, client.ObjectKey{Namespace: a.obj.Namespace, Name: account})
		if err != nil {
			return nil, fmt.Errorf("pull secrets of ServiceAccount '%s/%s': %w", a.obj.Namespace, account, err)
		}
		for i := range pull {
			if err := out.add(&pull[i]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (a *attempt) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	if err := a.client.Get(ctx, client.ObjectKey{Namespace: a.obj.Namespace, Name: name}, secret); err != nil {
		return nil, fmt.Errorf("failed to get secret '%s/%s': %w", a.obj.Namespace, name, err)
	}
	return secret, nil
}

// keychain is credentials by the registry, or the beginning of the repository,
// that they are for. The first of equally long names counts.
type keychain []credentials

type credentials struct {
	prefix string
	config authn.AuthConfig
}

// add takes the credentials of a Secret of Docker's kind.
func (k *keychain) add(secret *corev1.Secret) error {
	content, ok := secret.Data[corev1.DockerConfigJsonKey]
	if !ok {
		return fmt.Errorf("secret '%s/%s' has no %s; make it with: kubectl create secret docker-registry", secret.Namespace, secret.Name, corev1.DockerConfigJsonKey)
	}
	var parsed struct {
		Auths map[string]authn.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal(content, &parsed); err != nil {
		// The text of the error may quote a password.
		return fmt.Errorf("secret '%s/%s' holds no Docker configuration in %s", secret.Namespace, secret.Name, corev1.DockerConfigJsonKey)
	}
	for target, config := range parsed.Auths {
		*k = append(*k, credentials{prefix: normal(target), config: config})
	}
	return nil
}

// normal is a name in a Docker configuration without scheme and API version.
func normal(target string) string {
	if _, after, ok := strings.Cut(target, "://"); ok {
		target = after
	}
	target = strings.TrimSuffix(target, "/")
	for _, version := range []string{"/v1", "/v2"} {
		target = strings.TrimSuffix(target, version)
	}
	if target == "docker.io" {
		return name.DefaultRegistry
	}
	return target
}

// Resolve implements authn.Keychain.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	whole := target.String()
	best := -1
	for i, c := range k {
		if whole != c.prefix && !strings.HasPrefix(whole, c.prefix+"/") {
			continue
		}
		if best < 0 || len(c.prefix) > len(k[best].prefix) {
			best = i
		}
	}
	if best < 0 {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(k[best].config), nil
}

// bounded ends answers that are too long.
type bounded struct{ next http.RoundTripper }

var errLongAnswer = errors.New("the registry's answer is too long")

func (b *bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: maxAnswer}
	return response, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLongAnswer
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}
