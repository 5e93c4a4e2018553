package release

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	discoverycache "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// cluster is where a release lives, as the identity that acts there. It is made
// for one job and dropped with it.
type cluster struct {
	config *rest.Config
	mapper meta.RESTMapper
	// capabilities are what charts may ask about the cluster.
	capabilities *capabilities
	// local tells that it is the agent's own cluster, which can be watched.
	local bool
	// namespace is where objects go that name none.
	namespace string
}

// clusters finds the cluster of a release.
type clusters struct {
	client  client.Reader
	config  *rest.Config
	mapper  meta.RESTMapper
	shared  *capabilities
	account string // impersonated by releases that name none
}

// of returns the cluster of a release.
func (c *clusters) of(ctx context.Context, r *v2.HelmRelease) (*cluster, error) {
	out := &cluster{
		config: rest.CopyConfig(c.config), mapper: c.mapper, capabilities: c.shared, local: true,
		namespace: r.GetReleaseNamespace(),
	}
	if r.Spec.KubeConfig != nil {
		if err := c.remote(ctx, r, out); err != nil {
			return nil, err
		}
	}
	if name := c.accountOf(r); name != "" {
		out.config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + r.Namespace + ":" + name}
	}
	return out, nil
}

func (c *clusters) accountOf(r *v2.HelmRelease) string {
	if r.Spec.ServiceAccountName != "" {
		return r.Spec.ServiceAccountName
	}
	return c.account
}

// remote makes out the cluster of spec.kubeConfig.
func (c *clusters) remote(ctx context.Context, r *v2.HelmRelease, out *cluster) error {
	content, err := c.kubeconfig(ctx, r)
	if err != nil {
		return err
	}
	config, err := remoteConfig(content)
	if err != nil {
		return fmt.Errorf("kubeconfig in Secret %s/%s: %w", r.Namespace, r.Spec.KubeConfig.SecretRef.Name, err)
	}
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("kubeconfig in Secret %s/%s: %w", r.Namespace, r.Spec.KubeConfig.SecretRef.Name, err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, transport)
	if err != nil {
		return fmt.Errorf("read the kinds of the remote cluster: %w", err)
	}
	discover, err := discovery.NewDiscoveryClientForConfigAndClient(config, transport)
	if err != nil {
		return fmt.Errorf("connect to the remote cluster: %w", err)
	}
	out.config, out.mapper, out.local = config, mapper, false
	out.capabilities = newCapabilities(discover)
	return nil
}

func (c *clusters) kubeconfig(ctx context.Context, r *v2.HelmRelease) ([]byte, error) {
	ref := r.Spec.KubeConfig.SecretRef
	if ref == nil {
		return nil, errors.New("spec.kubeConfig.configMapRef is not supported here; use spec.kubeConfig.secretRef")
	}
	secret := new(corev1.Secret)
	if err := c.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: ref.Name}, secret); err != nil {
		return nil, fmt.Errorf("read kubeconfig Secret %s/%s: %w", r.Namespace, ref.Name, err)
	}
	keys := []string{"value", "value.yaml"}
	if ref.Key != "" {
		keys = []string{ref.Key}
	}
	for _, key := range keys {
		if content := secret.Data[key]; len(content) > 0 {
			return content, nil
		}
	}
	return nil, fmt.Errorf("kubeconfig Secret %s/%s has no key %v", r.Namespace, ref.Name, keys)
}

// remoteConfig reads a kubeconfig that may come from a tenant: it must not run
// programs or read files of the agent's machine.
func remoteConfig(content []byte) (*rest.Config, error) {
	parsed, err := clientcmd.Load(content)
	if err != nil {
		return nil, errors.New("it does not parse") // the parser's error would quote it
	}
	for name, user := range parsed.AuthInfos {
		if err := harmless(user); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
	}
	for name, cluster := range parsed.Clusters {
		if cluster.CertificateAuthority != "" {
			return nil, fmt.Errorf("cluster %s: certificate-authority names a file; put its content into certificate-authority-data", name)
		}
	}
	config, err := clientcmd.NewDefaultClientConfig(*parsed, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return config, nil
}

func harmless(user *clientcmdapi.AuthInfo) error {
	switch {
	case user.Exec != nil, user.AuthProvider != nil:
		return errors.New("it runs a program to log in, which is not allowed; use a token or a client certificate")
	case user.TokenFile != "", user.ClientCertificate != "", user.ClientKey != "":
		return errors.New("it names files, which is not allowed; put their content into the kubeconfig")
	}
	return nil
}

// ToRESTConfig implements genericclioptions.RESTClientGetter.
func (c *cluster) ToRESTConfig() (*rest.Config, error) { return c.config, nil }

// ToRESTMapper implements genericclioptions.RESTClientGetter.
func (c *cluster) ToRESTMapper() (meta.RESTMapper, error) { return c.mapper, nil }

// ToDiscoveryClient implements genericclioptions.RESTClientGetter. Helm hardly
// needs it: kinds come from the mapper, and capabilities are given to it.
func (c *cluster) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	discover, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return nil, err
	}
	return discoverycache.NewMemCacheClient(discover), nil
}

// ToRawKubeConfigLoader implements genericclioptions.RESTClientGetter. Only the
// namespace is ever asked of it.
func (c *cluster) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	overrides := &clientcmd.ConfigOverrides{Context: clientcmdapi.Context{Namespace: c.namespace}}
	return clientcmd.NewDefaultClientConfig(*clientcmdapi.NewConfig(), overrides)
}

func (c *cluster) clientset() (*kubernetes.Clientset, error) {
	set, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return set, nil
}

func (c *cluster) dynamic() (dynamic.Interface, error) {
	d, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return d, nil
}

// objects returns a client for single objects of any kind.
func (c *cluster) objects() (client.Client, error) {
	var transport *http.Client
	transport, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	objects, err := client.New(c.config, client.Options{HTTPClient: transport, Mapper: c.mapper})
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return objects, nil
}
