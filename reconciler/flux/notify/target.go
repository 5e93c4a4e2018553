package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	"github.com/fluxcd/pkg/runtime/secrets"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// target is a provider with its secrets, ready for use.
type target struct {
	address           string
	channel, username string // as whom and where a chat shows it
	token             string
	login, password   string
	headers           map[string]string
	commitStatus      string
	client            *http.Client
	timeout           time.Duration
}

// send tells a target of an event.
type send func(context.Context, *target, events.Event) error

// formats are the types of providers that are supported.
func formats() map[string]send {
	return map[string]send{
		notificationv1beta3.GenericProvider:         sendGeneric,
		notificationv1beta3.GenericHMACProvider:     sendGenericHMAC,
		notificationv1beta3.SlackProvider:           sendSlack,
		notificationv1beta3.RocketProvider:          sendSlack,
		notificationv1beta3.DiscordProvider:         sendDiscord,
		notificationv1beta3.MSTeamsProvider:         sendTeams,
		notificationv1beta3.AlertManagerProvider:    sendAlertmanager,
		notificationv1beta3.GrafanaProvider:         sendGrafana,
		notificationv1beta3.GitHubProvider:          sendGitHub,
		notificationv1beta3.GitLabProvider:          sendGitLab,
		notificationv1beta3.GiteaProvider:           sendGitea,
		notificationv1beta3.BitbucketServerProvider: sendBitbucketServer,
	}
}

func supported() []string { return slices.Sorted(maps.Keys(formats())) }

// newTarget reads what the provider refers to.
func newTarget(ctx context.Context, c client.Reader, p *notificationv1beta3.Provider) (*target, error) {
	if err := checkProvider(p); err != nil {
		return nil, err
	}
	t := &target{address: p.Spec.Address, channel: p.Spec.Channel, username: p.Spec.Username, timeout: p.GetTimeout()}
	proxy := p.Spec.Proxy
	var config *tls.Config
	if ref := p.Spec.SecretRef; ref != nil {
		secret, err := readSecret(ctx, c, p.Namespace, ref.Name)
		if err != nil {
			return nil, err
		}
		if err := t.take(secret); err != nil {
			return nil, fmt.Errorf("secret %s: %w", ref.Name, err)
		}
		if text := secret.Data["proxy"]; len(text) > 0 && proxy == "" {
			proxy = strings.TrimSpace(string(text))
		}
		if isCommitStatus(p.Spec.Type) && len(secret.Data[secrets.KeyCACert]) > 0 {
			if config, err = secrets.TLSConfigFromSecret(ctx, secret); err != nil {
				return nil, fmt.Errorf("secret %s: %w", ref.Name, err)
			}
		}
	}
	if ref := p.Spec.CertSecretRef; ref != nil {
		secret, err := readSecret(ctx, c, p.Namespace, ref.Name)
		if err != nil {
			return nil, err
		}
		if config, err = secrets.TLSConfigFromSecret(ctx, secret); err != nil {
			return nil, fmt.Errorf("secret %s: %w", ref.Name, err)
		}
	}
	if ref := p.Spec.ProxySecretRef; ref != nil {
		secret, err := readSecret(ctx, c, p.Namespace, ref.Name)
		if err != nil {
			return nil, err
		}
		u, err := secrets.ProxyURLFromSecret(ctx, secret)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", ref.Name, err)
		}
		proxy = u.String()
	}
	if _, err := addressOf(p.Spec.Type, t.address); err != nil {
		return nil, fmt.Errorf("the address %w", err)
	}
	var err error
	t.client, err = httpClient(config, proxy)
	return t, err
}

// take reads the secret of spec.secretRef.
func (t *target) take(secret *corev1.Secret) error {
	value := func(key string) string { return strings.TrimSpace(string(secret.Data[key])) }
	if address := value("address"); address != "" {
		t.address = address
	}
	t.token, t.password, t.login = value(secrets.KeyToken), value(secrets.KeyPassword), value(secrets.KeyUsername)
	if t.username == "" {
		t.username = t.login
	}
	if text := secret.Data["headers"]; len(text) > 0 {
		if err := yaml.Unmarshal(text, &t.headers); err != nil {
			return errors.New("the key headers is not a YAML map of names to values")
		}
	}
	return nil
}

// secrets are what must not be shown.
func (t *target) secrets() []string {
	all := []string{t.token, t.password, t.address}
	for _, value := range t.headers {
		all = append(all, value)
	}
	return all
}

func readSecret(ctx context.Context, c client.Reader, namespace, name string) (*corev1.Secret, error) {
	var secret corev1.Secret
	if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &secret); err != nil {
		return nil, fmt.Errorf("read secret %s/%s: %w", namespace, name, err)
	}
	return &secret, nil
}

// httpClient keeps no connections, since notifications are rare, and follows no
// redirects, which would take tokens elsewhere.
func httpClient(config *tls.Config, proxy string) (*http.Client, error) {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil || u.Host == "" {
			return nil, errors.New("the proxy's address is not a URL such as http://host:port")
		}
		transport.Proxy = http.ProxyURL(u)
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
