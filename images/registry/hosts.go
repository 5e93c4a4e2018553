package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
)

// ContainerdHosts are the places of registries as containerd's directory of
// registries says: mirrors, authorities and headers of a hosts.toml. What that has
// for all registries together is left out: other nodes are asked in another way.
func ContainerdHosts(ctx context.Context, dir string) func(registry string) ([]Place, error) {
	find := config.HostDirFromRoot(dir)
	hosts := config.ConfigureHosts(ctx, config.HostOptions{HostDir: func(registry string) (string, error) {
		found, err := find(registry)
		if err == nil && found == filepath.Join(dir, "_default") {
			return "", fmt.Errorf("no settings for %s: %w", registry, errdefs.ErrNotFound)
		}
		return found, err
	}})
	return func(registry string) ([]Place, error) {
		if registry == name.DefaultRegistry {
			registry = "docker.io" // as containerd calls it
		}
		all, err := hosts(registry)
		if err != nil {
			return nil, fmt.Errorf("settings for registry %s in %s: %w", registry, dir, err)
		}
		var out []Place
		for _, h := range all {
			if !h.Capabilities.Has(docker.HostCapabilityPull) {
				continue
			}
			p := Place{URL: &url.URL{Scheme: h.Scheme, Host: h.Host, Path: h.Path}, Transport: h.Client.Transport, Header: h.Header}
			if p.Transport == nil {
				p.Transport = http.DefaultTransport
			}
			if h.Host != registry && (registry != "docker.io" || h.Host != "registry-1.docker.io") {
				p.URL.RawQuery = url.Values{"ns": {registry}}.Encode() // a mirror of several wants to know
			}
			out = append(out, p)
		}
		return out, nil
	}
}
