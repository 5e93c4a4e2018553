package apply

import (
	"context"
	"errors"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// errNoKind says that the server does not serve a kind.
var errNoKind = errors.New("the API server does not know this kind")

// resource is where the objects of a kind live.
type resource struct {
	schema.GroupVersionResource
	namespaced bool
}

// kinds remembers where the objects of the kinds of one server live. Only the
// group versions asked for are ever discovered.
type kinds struct {
	mu        sync.Mutex
	discovery *discovery.DiscoveryClient
	found     map[schema.GroupVersionKind]*resource
}

func newKinds() *kinds { return &kinds{found: map[schema.GroupVersionKind]*resource{}} }

func (k *kinds) use(d *discovery.DiscoveryClient) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.discovery = d
}

// resource finds the resource of a kind, or errNoKind.
func (k *kinds) resource(ctx context.Context, gvk schema.GroupVersionKind) (*resource, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.found[gvk]; r != nil {
		return r, nil
	}
	list, err := k.discovery.ServerResourcesForGroupVersionWithContext(ctx, gvk.GroupVersion().String())
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, unavailable(err)
	}
	if err == nil {
		k.remember(gvk.GroupVersion(), list)
	}
	if r := k.found[gvk]; r != nil {
		return r, nil
	}
	return nil, errNoKind
}

// anyVersion finds the resource of a kind in any version that is served: an
// object outlives the API version that it was applied with.
func (k *kinds) anyVersion(ctx context.Context, gvk schema.GroupVersionKind) (*resource, error) {
	if gvk.Version != "" {
		r, err := k.resource(ctx, gvk)
		if !errors.Is(err, errNoKind) {
			return r, err
		}
	}
	versions, err := k.versions(ctx, gvk.Group)
	if err != nil {
		return nil, err
	}
	for _, version := range versions {
		r, err := k.resource(ctx, schema.GroupVersionKind{Group: gvk.Group, Version: version, Kind: gvk.Kind})
		if !errors.Is(err, errNoKind) {
			return r, err
		}
	}
	return nil, errNoKind
}

// versions lists the served versions of a group.
func (k *kinds) versions(ctx context.Context, group string) ([]string, error) {
	if group == "" {
		return []string{"v1"}, nil
	}
	k.mu.Lock()
	server := k.discovery
	k.mu.Unlock()
	groups, err := server.ServerGroupsWithContext(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	var out []string
	for _, g := range groups.Groups {
		if g.Name != group {
			continue
		}
		for _, v := range g.Versions {
			out = append(out, v.Version)
		}
	}
	return out, nil
}

func (k *kinds) remember(gv schema.GroupVersion, list *metav1.APIResourceList) {
	for _, r := range list.APIResources {
		gvk := gv.WithKind(r.Kind)
		if k.found[gvk] != nil || strings.Contains(r.Name, "/") {
			continue
		}
		k.found[gvk] = &resource{GroupVersionResource: gv.WithResource(r.Name), namespaced: r.Namespaced}
	}
}

// forget drops what is known about a kind, whose definition went.
func (k *kinds) forget(gvk schema.GroupVersionKind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.found, gvk)
}
