package git

import (
	"context"
	"fmt"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// remote says what to fetch, with the credentials that the Secrets hold now.
func (a *attempt) remote(ctx context.Context) (mirror.Remote, error) {
	r := mirror.Remote{URL: a.obj.Spec.URL, Credentials: &mirror.Credentials{}, ConfiguredIn: "GitRepository " + a.obj.Namespace + "/" + a.obj.Name}
	if ref := a.obj.Spec.Reference; ref != nil {
		r.Reference = mirror.Reference{Branch: ref.Branch, Tag: ref.Tag, SemVer: ref.SemVer, Name: ref.Name, Commit: ref.Commit}
	}
	if ref := a.obj.Spec.SecretRef; ref != nil {
		data, err := a.secret(ctx, ref.Name)
		if err != nil {
			return r, err
		}
		fill(r.Credentials, data)
	}
	if ref := a.obj.Spec.ProxySecretRef; ref != nil {
		data, err := a.secret(ctx, ref.Name)
		if err != nil {
			return r, err
		}
		if r.Credentials.Proxy, err = proxyOf(data); err != nil {
			return r, fmt.Errorf("proxy in Secret '%s/%s': %w", a.obj.Namespace, ref.Name, err)
		}
	}
	return r, nil
}

func (a *attempt) secret(ctx context.Context, name string) (map[string][]byte, error) {
	secret := &corev1.Secret{}
	if err := a.client.Get(ctx, client.ObjectKey{Namespace: a.obj.Namespace, Name: name}, secret); err != nil {
		return nil, fmt.Errorf("failed to get secret '%s/%s': %w", a.obj.Namespace, name, err)
	}
	return secret.Data, nil
}

// fill takes over the keys of Flux's Secrets. The older names of keys count
// where the newer are missing.
func fill(c *mirror.Credentials, data map[string][]byte) {
	first := func(names ...string) string {
		for _, name := range names {
			if len(data[name]) > 0 {
				return string(data[name])
			}
		}
		return ""
	}
	c.Username, c.Password, c.BearerToken = first("username"), first("password"), first("bearerToken")
	c.CACertificates = first("ca.crt", "caFile")
	c.ClientCertificate, c.ClientKey = first("tls.crt", "certFile"), first("tls.key", "keyFile")
	c.SSHKey, c.KnownHosts = first("identity"), first("known_hosts")
	if c.SSHKey != "" {
		// With a key the password is that of the key.
		c.SSHKeyPassphrase, c.Password = c.Password, ""
	}
}

// proxyOf puts the URL of a proxy together.
func proxyOf(data map[string][]byte) (string, error) {
	address := string(data["address"])
	if address == "" {
		return "", fmt.Errorf("the key %q is missing", "address")
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%q is not a URL such as http://proxy.example:3128", "address")
	}
	if name := string(data["username"]); name != "" {
		u.User = url.UserPassword(name, string(data["password"]))
	}
	return u.String(), nil
}
