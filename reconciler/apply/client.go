package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// FieldManager owns the fields that come from Git.
const FieldManager = "bothy"

const requestTimeout = 30 * time.Second

// Client is a connection to one API server. It keeps no copies of objects and
// no OpenAPI documents, only the resource names of the kinds it met.
type Client struct {
	objects   dynamic.Interface
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterface

	mu    sync.Mutex
	kinds map[schema.GroupVersionKind]resource
}

// resource is where the objects of a kind live.
type resource struct {
	schema.GroupVersionResource
	namespaced bool
}

// Connect reads a kubeconfig file. It does not send anything. A file that does
// not exist yet is reported as ErrUnavailable.
func Connect(kubeconfig string) (*Client, error) {
	if _, err := os.Stat(kubeconfig); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	return ConnectConfig(config)
}

// ConnectConfig is Connect with a configuration in memory.
func ConnectConfig(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // the server's own flow control is the limit
	config.Timeout = requestTimeout
	config.UserAgent = "bothy-reconciler"
	config.WarningHandler = rest.NoWarnings{}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	c := &Client{kinds: map[schema.GroupVersionKind]resource{}}
	if c.objects, err = dynamic.NewForConfigAndClient(config, httpClient); err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	if c.metadata, err = metadata.NewForConfigAndClient(config, httpClient); err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	if c.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(config, httpClient); err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return c, nil
}

// errNoKind says that the server does not serve a kind.
var errNoKind = errors.New("the API server does not know this kind")

// resourceOf finds the resource of a kind; only the group version asked for is
// ever discovered.
func (c *Client) resourceOf(ctx context.Context, gvk schema.GroupVersionKind) (resource, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.kinds[gvk]; ok {
		return r, nil
	}
	if err := ctx.Err(); err != nil {
		return resource{}, err
	}
	list, err := c.discovery.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
	if err != nil && !apierrors.IsNotFound(err) {
		return resource{}, unavailable(err)
	}
	if err == nil {
		c.remember(gvk.GroupVersion(), list)
	}
	if r, ok := c.kinds[gvk]; ok {
		return r, nil
	}
	return resource{}, errNoKind
}

// anyVersionOf finds the resource of a kind in any version that is served: an
// object outlives the API version that it was applied with.
func (c *Client) anyVersionOf(ctx context.Context, gvk schema.GroupVersionKind) (resource, error) {
	r, err := c.resourceOf(ctx, gvk)
	if !errors.Is(err, errNoKind) || gvk.Group == "" {
		return r, err
	}
	groups, err := c.discovery.ServerGroups()
	if err != nil {
		return resource{}, unavailable(err)
	}
	for _, g := range groups.Groups {
		if g.Name != gvk.Group {
			continue
		}
		for _, v := range g.Versions {
			r, err := c.resourceOf(ctx, schema.GroupVersionKind{Group: g.Name, Version: v.Version, Kind: gvk.Kind})
			if !errors.Is(err, errNoKind) {
				return r, err
			}
		}
	}
	return resource{}, errNoKind
}

func (c *Client) remember(gv schema.GroupVersion, list *metav1.APIResourceList) {
	for _, r := range list.APIResources {
		gvk := gv.WithKind(r.Kind)
		if _, ok := c.kinds[gvk]; ok || isSubresource(r.Name) {
			continue
		}
		c.kinds[gvk] = resource{GroupVersionResource: gv.WithResource(r.Name), namespaced: r.Namespaced}
	}
}

// forget drops what is known about kinds, so that definitions which came or
// went are noticed.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.kinds)
}

func isSubresource(name string) bool {
	for _, r := range name {
		if r == '/' {
			return true
		}
	}
	return false
}

// of returns the client for the objects of a resource in a namespace.
func (c *Client) of(r resource, namespace string) dynamic.ResourceInterface {
	if r.namespaced {
		return c.objects.Resource(r.GroupVersionResource).Namespace(namespace)
	}
	return c.objects.Resource(r.GroupVersionResource)
}
