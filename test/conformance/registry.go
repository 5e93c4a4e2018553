package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/test/cluster"
)

// suiteRegistry is where the images of the suite are upstream. Some pods want theirs to be pulled although the node has
// it, so that the nodes of a run find the images built here under that name.
const suiteRegistry = "registry.k8s.io"

// registry serves the images of an OCI layout to nodes, to be read only.
type registry struct {
	layout string
	// manifests are descriptors by "NAME:TAG" and "NAME@DIGEST", without the name of the registry.
	manifests map[string]v1.Descriptor

	server *http.Server
}

func openRegistry(dir string) (*registry, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	r := &registry{layout: dir, manifests: map[string]v1.Descriptor{}}
	for _, d := range list.Manifests {
		ref, ours := strings.CutPrefix(d.Annotations[ocispec.AnnotationRefName], suiteRegistry+"/")
		if !ours {
			continue
		}
		name, _, _ := strings.Cut(ref, ":")
		r.manifests[ref], r.manifests[name+"@"+d.Digest.String()] = d, d
	}
	return r, nil
}

// ServeHTTP implements http.Handler: what a client needs of the distribution API to pull.
func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	path, ok := strings.CutPrefix(q.URL.Path, "/v2/")
	if !ok || q.Method != http.MethodGet && q.Method != http.MethodHead {
		http.NotFound(w, q)
		return
	}
	if path == "" {
		return // the question whether this is a registry
	}
	if name, reference, ok := strings.Cut(path, "/manifests/"); ok {
		separator := ":"
		if strings.Contains(reference, ":") { // a digest
			separator = "@"
		}
		d, ok := r.manifests[name+separator+reference]
		if !ok {
			http.NotFound(w, q)
			return
		}
		w.Header().Set("Content-Type", string(d.MediaType))
		r.serve(w, q, d.Digest)
		return
	}
	_, digest, _ := strings.Cut(path, "/blobs/")
	hash, err := v1.NewHash(digest)
	if err != nil {
		http.NotFound(w, q)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	r.serve(w, q, hash)
}

func (r *registry) serve(w http.ResponseWriter, q *http.Request, digest v1.Hash) {
	w.Header().Set("Docker-Content-Digest", digest.String())
	http.ServeFile(w, q, filepath.Join(r.layout, "blobs", digest.Algorithm, digest.Hex))
}

// start serves on this machine's address on the nodes' link, the one before theirs, and tells containerd of all nodes.
func (r *registry) start(ctx context.Context, node *cluster.Node) error {
	st, err := node.ReadStatus(ctx)
	if err != nil {
		return err
	}
	own, err := netip.ParseAddr(st.Node.IP)
	if err != nil {
		return fmt.Errorf("address of the node: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(own.Prev().String(), "0"))
	if err != nil {
		return fmt.Errorf("serve the images of the suite: %w", err)
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(listener) }()
	hosts := fmt.Sprintf("server = \"http://%s\"\n\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", listener.Addr(), listener.Addr())
	states := []string{node.State}
	for i := range node.Workers {
		states = append(states, node.Worker(i+1).State)
	}
	for _, state := range states {
		dir := filepath.Join(state, "images", "registries", suiteRegistry)
		if err := errors.Join(os.MkdirAll(dir, 0o755), durable.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o644)); err != nil {
			return errors.Join(err, r.server.Close())
		}
	}
	return nil
}

func (r *registry) close() error { return r.server.Close() }
