package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/bothy-os/bothy/internal/cosign"
)

const (
	// avoidFor is how long a node is left alone that sent something wrong.
	avoidFor = 10 * time.Minute
	// dialPatience is short: a node that is off must not hold up a pull.
	dialPatience = 2 * time.Second
	// answerPatience is how long a node may be silent, before an answer or within.
	answerPatience = 20 * time.Second
	// atOnce bounds how many blobs of an image are fetched at a time.
	atOnce = 3
	// maxSignatures bounds what is attached to one digest, in bytes.
	maxSignatures = 64 << 20
)

// SiblingsConfig says where other nodes are and how they are spoken to.
type SiblingsConfig struct {
	// Self is this node's name.
	Self string
	// File is what [WriteNodes] writes.
	File string
	// Registries is containerd's directory of registries, Identity how containerd
	// shows who it is.
	Registries string
	Identity   Identity
	// TLS returns how other nodes are recognised. It is asked for each pull:
	// certificates are renewed.
	TLS func() (*tls.Config, error)
	// Log receives a line for each image that came from other nodes, and for each
	// node that sent something wrong. Default: discard.
	Log *slog.Logger
}

// Siblings are the other nodes, as a source of images and of what is attached to
// them. They are safe for concurrent use.
type Siblings struct {
	cfg SiblingsConfig

	mu sync.Mutex
	// avoided are addresses with the end of the time for which they are not asked.
	avoided map[string]time.Time
}

// NewSiblings returns the other nodes; nothing is opened yet.
func NewSiblings(cfg SiblingsConfig) *Siblings {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Siblings{cfg: cfg, avoided: map[string]time.Time{}}
}

// Configure has containerd ask those nodes, and no others, that are to be asked.
func (s *Siblings) Configure() error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	addresses := make([]string, 0, len(nodes))
	for _, n := range nodes {
		addresses = append(addresses, n.Address)
	}
	_, err = WriteHosts(s.cfg.Registries, addresses, s.cfg.Identity)
	return err
}

// nodes are those that are to be asked, in this order.
func (s *Siblings) nodes() ([]Node, error) {
	all, _, err := ReadNodes(s.cfg.File)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Node
	for _, n := range after(all, s.cfg.Self) {
		until, found := s.avoided[n.Address]
		if found && time.Now().Before(until) {
			continue
		}
		delete(s.avoided, n.Address)
		out = append(out, n)
	}
	return out, nil
}

// avoid leaves a node alone for a while, containerd's pulls included.
func (s *Siblings) avoid(n Node, why error) {
	s.mu.Lock()
	s.avoided[n.Address] = time.Now().Add(avoidFor)
	s.mu.Unlock()
	s.cfg.Log.Warn("another node sent something wrong, and is not asked for a while", "node", n.Name, "address", n.Address, "for", avoidFor, "err", why)
	if err := s.Configure(); err != nil {
		s.cfg.Log.Warn("tell containerd which nodes to ask", "err", err)
	}
}

// wrongError is an answer that cannot be right, whatever was asked.
type wrongError struct{ text string }

func (e *wrongError) Error() string { return e.text }

// ErrNobody says that no other node has what was asked for.
var ErrNobody = fmt.Errorf("no other node of the site has it: %w", errdefs.ErrNotFound)

// each asks one node after the other until visit is content. It is ErrNobody if
// none has it, and else why the last of them could not give it.
func (s *Siblings) each(ctx context.Context, visit func(*http.Client, Node) error) error {
	nodes, err := s.nodes()
	if err != nil || len(nodes) == 0 {
		return errors.Join(err, ErrNobody)
	}
	config, err := s.cfg.TLS()
	if err != nil {
		return fmt.Errorf("ask other nodes: %w", err)
	}
	transport := &http.Transport{
		TLSClientConfig: config, DialContext: (&net.Dialer{Timeout: dialPatience}).DialContext, TLSHandshakeTimeout: dialPatience,
		ResponseHeaderTimeout: answerPatience, DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	failed := ErrNobody
	for _, n := range nodes {
		err := visit(client, n)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if errdefs.IsNotFound(err) {
			continue
		}
		failed = fmt.Errorf("node %s: %w", n.Name, err)
		if wrong := (*wrongError)(nil); errors.As(err, &wrong) {
			s.avoid(n, err)
		} else {
			s.cfg.Log.Info("another node could not be asked", "node", n.Name, "address", n.Address, "err", err)
		}
	}
	return failed
}

// get opens an answer of a node. Reading from it fails when nothing comes.
func get(ctx context.Context, client *http.Client, n Node, path string) (body io.ReadCloser, err error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Scheme: "https", Host: n.Address, Path: path}).String(), nil)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	watched := &watched{ReadCloser: resp.Body, cancel: cancel, timer: time.AfterFunc(answerPatience, cancel)}
	if resp.StatusCode == http.StatusOK {
		return watched, nil
	}
	_ = watched.Close() // nothing is read from it
	if resp.StatusCode == http.StatusNotFound {
		return nil, errdefs.ErrNotFound
	}
	return nil, fmt.Errorf("it answers %s", resp.Status)
}

// watched is an answer that must not fall silent.
type watched struct {
	io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.timer.Reset(answerPatience)
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel()
	return w.ReadCloser.Close()
}

func bounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &wrongError{fmt.Sprintf("its answer is longer than %d MiB", limit>>20)}
	}
	return data, err
}

// Collect returns what other nodes know to be attached to a digest. It proves
// nothing, and is judged like what a registry says.
func (s *Siblings) Collect(ctx context.Context, _, of string) (*cosign.Signatures, error) {
	all := &cosign.Signatures{Digest: of}
	err := s.each(ctx, func(client *http.Client, n Node) error {
		body, err := get(ctx, client, n, signaturesPath+of)
		if err != nil {
			return err
		}
		defer body.Close()
		text, err := bounded(body, maxSignatures)
		if err != nil {
			return err
		}
		found := &cosign.Signatures{}
		if err := json.Unmarshal(text, found); err != nil || found.Digest != of {
			return &wrongError{fmt.Sprintf("it sent no signatures of %s", of)}
		}
		all.Merge(found)
		return errdefs.ErrNotFound // the next may have more
	})
	if !all.Empty() || errors.Is(err, ErrNobody) {
		return all, ctx.Err()
	}
	return all, err
}

// Manifest returns a manifest or index with a digest.
func (s *Siblings) Manifest(ctx context.Context, image, of string) (data []byte, err error) {
	d, err := digest.Parse(of)
	if err != nil {
		return nil, err
	}
	err = s.each(ctx, func(client *http.Client, n Node) (err error) {
		data, err = manifestOf(ctx, client, n, image, d)
		return err
	})
	return data, err
}

func manifestOf(ctx context.Context, client *http.Client, n Node, image string, d digest.Digest) ([]byte, error) {
	body, err := get(ctx, client, n, "/v2/"+pathOf(image)+"/manifests/"+d.String())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := bounded(body, maxManifest)
	if err == nil && d.Algorithm().FromBytes(data) != d {
		err = &wrongError{fmt.Sprintf("it sent a manifest that hashes to %s for %s", d.Algorithm().FromBytes(data), d)}
	}
	return data, err
}

// pathOf is the part of an image's name that registries have in their addresses.
func pathOf(image string) string {
	_, path, _ := strings.Cut(image, "/")
	if i := strings.IndexAny(path, "@:"); i >= 0 {
		path = path[:i]
	}
	if path == "" {
		return "image"
	}
	return path
}

// Fetch puts what other nodes have of an image, for this machine, into a content
// store. Every blob is hashed, and one that is wrong is asked for elsewhere. It is
// an error if not all of the image is there then: what is missing is for its
// registry to give.
func (s *Siblings) Fetch(ctx context.Context, store content.Store, image string, desc ocispec.Descriptor) error {
	if nodes, err := s.nodes(); err != nil || len(nodes) == 0 {
		return errors.Join(err, ErrNobody)
	}
	started := time.Now()
	f := &fetch{Siblings: s, store: store, image: image}
	if err := f.tree(ctx, desc, 0); err != nil {
		return err
	}
	if f.bytes > 0 {
		s.cfg.Log.Info("image fetched from other nodes", "image", image, "digest", desc.Digest.String(), "bytes", f.bytes, "took", time.Since(started).Round(time.Millisecond))
	}
	return nil
}

// fetch is one image on its way.
type fetch struct {
	*Siblings
	store content.Store
	image string

	mu    sync.Mutex
	bytes int64
}

// maxDepth is how deep an index may be nested.
const maxDepth = 4

// tree fetches a manifest with all that it names, or the part of an index that is
// for this machine.
func (f *fetch) tree(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if err := f.manifest(ctx, desc); err != nil {
		return err
	}
	children, err := ctrdimages.Children(ctx, f.store, desc)
	if err != nil {
		return err
	}
	if ctrdimages.IsIndexType(desc.MediaType) {
		child, err := forThisMachine(children)
		if err != nil || depth == maxDepth {
			return errors.Join(err, ErrNobody)
		}
		return f.tree(ctx, child, depth+1)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, c := range children {
		group.Go(func() error { return f.blob(ctx, c) })
	}
	return group.Wait()
}

// forThisMachine picks the manifest that containerd would.
func forThisMachine(manifests []ocispec.Descriptor) (ocispec.Descriptor, error) {
	here := platforms.Default()
	var best *ocispec.Descriptor
	for i, m := range manifests {
		if m.Platform == nil || !here.Match(*m.Platform) {
			continue
		}
		if best == nil || here.Less(*m.Platform, *best.Platform) {
			best = &manifests[i]
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, errors.New("the index has no manifest for this machine")
	}
	return *best, nil
}

func (f *fetch) manifest(ctx context.Context, desc ocispec.Descriptor) error {
	if _, err := f.store.Info(ctx, desc.Digest); err == nil {
		return nil
	}
	if !ctrdimages.IsManifestType(desc.MediaType) && !ctrdimages.IsIndexType(desc.MediaType) {
		return fmt.Errorf("%s is no image: %w", desc.MediaType, errdefs.ErrNotFound)
	}
	data, err := f.Manifest(ctx, f.image, desc.Digest.String())
	if err != nil {
		return err
	}
	return f.write(ctx, desc, bytes.NewReader(data))
}

func (f *fetch) blob(ctx context.Context, desc ocispec.Descriptor) error {
	if _, err := f.store.Info(ctx, desc.Digest); err == nil {
		return nil
	}
	return f.each(ctx, func(client *http.Client, n Node) error {
		body, err := get(ctx, client, n, "/v2/"+pathOf(f.image)+"/blobs/"+desc.Digest.String())
		if err != nil {
			return err
		}
		defer body.Close()
		err = f.write(ctx, desc, io.LimitReader(body, desc.Size+1))
		if errdefs.IsFailedPrecondition(err) {
			return &wrongError{fmt.Sprintf("it sent something else for %s: %v", desc.Digest, err)}
		}
		return err
	})
}

// write writes a whole blob or nothing: what one node began is not for another to
// go on with, because then nobody could say who sent what is wrong.
func (f *fetch) write(ctx context.Context, desc ocispec.Descriptor, from io.Reader) error {
	ref := "bothy-sibling-" + desc.Digest.String()
	plain := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	_ = f.store.Abort(ctx, ref) // of a pull that was cut short
	err := content.WriteBlob(ctx, f.store, ref, from, plain)
	if err != nil {
		_ = f.store.Abort(context.WithoutCancel(ctx), ref) // the error that matters is the one above
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += desc.Size
	return nil
}
