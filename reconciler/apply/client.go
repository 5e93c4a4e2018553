package apply

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// FieldManager owns the fields that come from Git.
const FieldManager = "bothy"

const requestTimeout = 30 * time.Second

// Client is a connection to one API server as one identity. It keeps no copies
// of objects and no OpenAPI documents, only the resource names of the kinds it
// met. It may be used by several goroutines.
type Client struct {
	kubeconfig string // empty if connected from memory
	host       string
	kinds      *kinds
	links      atomic.Pointer[links]
}

// links are the ways to talk to the server; all share one transport.
type links struct {
	objects  rest.Interface
	metadata metadata.Interface
}

// Connect reads a kubeconfig file. It does not send anything. A file that does
// not exist yet is reported as ErrUnavailable.
func Connect(kubeconfig string) (*Client, error) {
	config, err := readKubeconfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	c, err := ConnectConfig(config)
	if err != nil {
		return nil, err
	}
	c.kubeconfig = kubeconfig
	return c, nil
}

func readKubeconfig(path string) (*rest.Config, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", path, err)
	}
	return config, nil
}

// ConnectConfig is Connect with a configuration in memory.
func ConnectConfig(config *rest.Config) (*Client, error) {
	c := &Client{host: config.Host, kinds: newKinds()}
	return c, c.dial(config)
}

// As connects with another configuration, such as one that impersonates a
// service account. What is known about the kinds of the server is shared if it
// is the same server.
func (c *Client) As(config *rest.Config) (*Client, error) {
	if config.Host != c.host {
		return ConnectConfig(config)
	}
	other := &Client{host: c.host, kinds: c.kinds}
	links, _, err := dial(config)
	if err != nil {
		return nil, err
	}
	other.links.Store(links)
	return other, nil
}

// Reload reads the kubeconfig again, for everybody who uses the client: it may
// have been written anew, with other credentials or another CA.
func (c *Client) Reload() error {
	if c.kubeconfig == "" {
		return nil
	}
	config, err := readKubeconfig(c.kubeconfig)
	if err != nil {
		return err
	}
	return c.dial(config)
}

func (c *Client) dial(config *rest.Config) error {
	links, discovery, err := dial(config)
	if err != nil {
		return err
	}
	c.links.Store(links)
	c.kinds.use(discovery)
	return nil
}

func dial(config *rest.Config) (*links, *discovery.DiscoveryClient, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1    // the server's own flow control is the limit
	config.Timeout = 0 // it would end watches; requests have their own
	config.UserAgent = "bothy-reconciler"
	config.WarningHandler = rest.NoWarnings{}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the API server: %w", err)
	}
	objects := dynamic.ConfigFor(config)
	objects.GroupVersion, objects.APIPath = &schema.GroupVersion{}, "/"
	l := &links{}
	if l.objects, err = rest.RESTClientForConfigAndClient(objects, httpClient); err != nil {
		return nil, nil, fmt.Errorf("connect to the API server: %w", err)
	}
	if l.metadata, err = metadata.NewForConfigAndClient(config, httpClient); err != nil {
		return nil, nil, fmt.Errorf("connect to the API server: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return l, kinds, nil
}

// detail is how much of an object the server is asked for.
type detail bool

const (
	whole        detail = false
	metadataOnly detail = true
)

const acceptMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// path is where an object, or with an empty name its collection, lives.
func (r *resource) path(namespace, name string) string {
	path := "/apis/" + r.Group + "/" + r.Version
	if r.Group == "" {
		path = "/api/" + r.Version
	}
	if r.namespaced {
		path += "/namespaces/" + namespace
	}
	path += "/" + r.Resource
	if name != "" {
		path += "/" + name
	}
	return path
}

// get reads one object.
func (c *Client) get(ctx context.Context, r *resource, namespace, name string, d detail) (*unstructured.Unstructured, error) {
	request := c.links.Load().objects.Get().AbsPath(r.path(namespace, name))
	u, _, err := do(ctx, request, d)
	return u, err
}

// write creates (POST) or replaces (PUT) one object.
func (c *Client) write(ctx context.Context, verb string, r *resource, namespace, name string, body []byte) (*unstructured.Unstructured, error) {
	request := c.links.Load().objects.Verb(verb).AbsPath(r.path(namespace, name)).
		Param("fieldManager", FieldManager).SetHeader("Content-Type", "application/json").Body(body)
	u, _, err := do(ctx, request, whole)
	return u, err
}

// patching is how an object is patched.
type patching struct {
	kind   types.PatchType
	detail detail
	dryRun bool
}

// patch sends one patch; created reports that the object did not exist.
func (c *Client) patch(ctx context.Context, r *resource, namespace, name string, body []byte, p patching) (live *unstructured.Unstructured, created bool, err error) {
	request := c.links.Load().objects.Patch(p.kind).AbsPath(r.path(namespace, name)).
		Param("fieldManager", FieldManager).Body(body)
	if p.kind == types.ApplyPatchType {
		request.Param("force", "true")
	}
	if p.dryRun {
		request.Param("dryRun", metav1.DryRunAll)
	}
	live, status, err := do(ctx, request, p.detail)
	return live, status == http.StatusCreated, err
}

func do(ctx context.Context, request *rest.Request, d detail) (*unstructured.Unstructured, int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if d == metadataOnly {
		request.SetHeader("Accept", acceptMetadata)
	}
	var status int
	result := request.Do(ctx).StatusCode(&status)
	if err := result.Error(); err != nil { // what the server's Status says
		return nil, status, err
	}
	text, err := result.Raw()
	if err != nil {
		return nil, status, err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		return nil, status, fmt.Errorf("decode the API server's answer: %w", err)
	}
	return u, status, nil
}
