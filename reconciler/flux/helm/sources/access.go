package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/runtime/secrets"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/flux/helm/remote"
)

// accessor reads the credentials of repositories.
type accessor struct {
	client    client.Reader
	userAgent string
}

// access returns how a repository is reached and, for registries, the keychain
// of a Secret of Docker's kind.
func (a accessor) access(ctx context.Context, r *sourcev1.HelmRepository) (remote.Access, authn.Keychain, error) {
	access := remote.Access{Timeout: r.GetTimeout(), UserAgent: a.userAgent}
	var keychain authn.Keychain
	if r.Spec.SecretRef != nil {
		secret, err := a.secret(ctx, r.Namespace, r.Spec.SecretRef.Name)
		if err != nil {
			return access, nil, err
		}
		if keychain, err = credentials(ctx, secret, &access); err != nil {
			return access, nil, fmt.Errorf("secret %s/%s: %w", secret.Namespace, secret.Name, err)
		}
	}
	if r.Spec.CertSecretRef != nil {
		secret, err := a.secret(ctx, r.Namespace, r.Spec.CertSecretRef.Name)
		if err != nil {
			return access, nil, err
		}
		if access.TLS, err = secrets.TLSConfigFromSecret(ctx, secret); err != nil {
			return access, nil, fmt.Errorf("secret %s/%s: %w", secret.Namespace, secret.Name, err)
		}
	}
	return access, keychain, nil
}

func (a accessor) secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	secret := new(corev1.Secret)
	if err := a.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, secret); err != nil {
		return nil, fmt.Errorf("read secret %s/%s: %w", namespace, name, err)
	}
	return secret, nil
}

// credentials takes what a Secret says about who we are. Certificates in it are
// the older way of giving them.
func credentials(ctx context.Context, secret *corev1.Secret, access *remote.Access) (authn.Keychain, error) {
	if secret.Type == corev1.SecretTypeDockerConfigJson {
		return newKeychain(secret.Data[corev1.DockerConfigJsonKey])
	}
	methods, err := secrets.AuthMethodsFromSecret(ctx, secret)
	if err != nil {
		return nil, err
	}
	if methods.HasBasicAuth() {
		access.Username, access.Password = methods.Basic.Username, methods.Basic.Password
	}
	if methods.HasTLS() {
		access.TLS = methods.TLS
	}
	if !methods.HasBasicAuth() && !methods.HasTLS() {
		return nil, errors.New("it has neither username and password nor certificates")
	}
	return nil, nil
}

// keychain has the credentials of a Docker configuration.
type keychain map[string]authn.AuthConfig

func newKeychain(config []byte) (authn.Keychain, error) {
	var parsed struct {
		Auths map[string]authn.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal(config, &parsed); err != nil {
		// The error of the parser would quote what it could not parse.
		return nil, fmt.Errorf("%s is no Docker configuration", corev1.DockerConfigJsonKey)
	}
	return keychain(parsed.Auths), nil
}

// Resolve implements authn.Keychain.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for _, key := range []string{target.String(), target.RegistryStr(), "https://" + target.RegistryStr()} {
		if config, ok := k[key]; ok {
			return authn.FromConfig(config), nil
		}
	}
	return authn.Anonymous, nil
}
