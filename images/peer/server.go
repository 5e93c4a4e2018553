package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/internal/cosign"
)

const (
	// maxManifest bounds what is taken for a manifest.
	maxManifest = 4 << 20
	// maxRequests bounds what is answered at once: a node has other things to do.
	maxRequests = 16
	// patience is how long a client may take for its headers.
	patience = 10 * time.Second
)

// Images finds images by their full names.
type Images interface {
	// Find returns what a name stands for. What this node does not have, or what
	// others are not to take from it, is an error for which errdefs.IsNotFound holds.
	Find(ctx context.Context, name string) (ocispec.Descriptor, error)
}

// Content is the part of containerd's content store that is read.
type Content interface {
	content.Provider
	content.InfoProvider
}

// Server gives other nodes the images that this one has.
type Server struct {
	// Images and Content are this node's.
	Images  Images
	Content Content
	// Signatures returns what this node knows to be attached to a digest. Nil for a
	// node that gives none.
	Signatures func(digest string) (*cosign.Signatures, error)
	// TLS must ask clients for a certificate and verify it.
	TLS *tls.Config
	// Enrolled says why the holder of a verified certificate gets nothing, nil if it
	// does. It is asked at each request: a certificate cannot be taken back, and a
	// connection lasts.
	Enrolled func(*x509.Certificate) error
	// Log receives a line per answer at level debug. Default: discard.
	Log *slog.Logger
}

// ErrOpen says that a TLS configuration would let everybody in.
var ErrOpen = errors.New("images are given to enrolled nodes only: the TLS configuration must require and verify a certificate of the client, and somebody must say who is enrolled")

// signaturesPath is followed by the digest that they are attached to.
const signaturesPath = "/bothy/v1/signatures/"

// Serve answers on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	verified := s.TLS != nil && (s.TLS.ClientAuth == tls.RequireAndVerifyClientCert ||
		s.TLS.ClientAuth == tls.RequireAnyClientCert && (s.TLS.VerifyPeerCertificate != nil || s.TLS.VerifyConnection != nil))
	if !verified || s.Enrolled == nil {
		return errors.Join(ErrOpen, l.Close())
	}
	server := &http.Server{
		Handler: s.enrolled(s.Handler()), ReadHeaderTimeout: patience, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log().Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(tls.NewListener(l, s.TLS)) }()
	select {
	case err := <-ended:
		return fmt.Errorf("give images to other nodes: %w", err)
	case <-ctx.Done():
		_ = server.Close() // a client asks somebody else
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("give images to other nodes: %w", err)
		}
		return nil
	}
}

// enrolled lets through who is still part of the site.
func (s *Server) enrolled(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why := errors.New("without a certificate")
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			why = s.Enrolled(r.TLS.PeerCertificates[0])
		}
		if why != nil {
			s.log().Warn("image refused to another machine", "from", r.RemoteAddr, "reason", why)
			fail(w, http.StatusForbidden, "DENIED")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// Handler answers without asking who it is: it belongs behind mutual TLS.
func (s *Server) Handler() http.Handler {
	places := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS")
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
			return
		}
		s.answer(w, r)
	})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	if of, ok := strings.CutPrefix(r.URL.Path, signaturesPath); ok {
		s.attached(w, r, of)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		fail(w, http.StatusNotFound, "UNSUPPORTED")
		return
	}
	if rest == "" {
		w.WriteHeader(http.StatusOK)
		return
	}
	repository, what, found := cutLast(rest, "/manifests/")
	if found {
		s.manifest(w, r, repository, what)
		return
	}
	if _, what, found = cutLast(rest, "/blobs/"); found {
		s.blob(w, r, what)
		return
	}
	fail(w, http.StatusNotFound, "UNSUPPORTED")
}

// attached answers with the signatures of a digest.
func (s *Server) attached(w http.ResponseWriter, r *http.Request, of string) {
	if _, err := digest.Parse(of); err != nil || s.Signatures == nil {
		fail(w, http.StatusNotFound, "UNSUPPORTED")
		return
	}
	found, err := s.Signatures(of)
	if err == nil && found.Empty() {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		s.refuse(w, r, err, "BLOB_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(found) // the client has gone away
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// manifest answers by digest, or by the tag of an image that the site needs.
func (s *Server) manifest(w http.ResponseWriter, r *http.Request, repository, what string) {
	d, err := digest.Parse(what)
	if err != nil {
		// The name of the registry comes beside the path, as to any mirror.
		desc, err := s.Images.Find(r.Context(), r.URL.Query().Get("ns")+"/"+repository+":"+what)
		if err != nil {
			s.refuse(w, r, err, "MANIFEST_UNKNOWN")
			return
		}
		d = desc.Digest
	}
	data, err := s.read(r.Context(), d)
	if err != nil {
		s.refuse(w, r, err, "MANIFEST_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", mediaType(data))
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	s.log().Debug("manifest given", "digest", d.String(), "to", r.RemoteAddr)
	if r.Method == http.MethodGet {
		_, _ = w.Write(data) // the client has gone away
	}
}

// read returns a small blob whose hash is right.
func (s *Server) read(ctx context.Context, d digest.Digest) ([]byte, error) {
	info, err := s.Content.Info(ctx, d)
	if err != nil {
		return nil, err
	}
	if info.Size > maxManifest {
		return nil, fmt.Errorf("%s is no manifest: %w", d, errdefs.ErrNotFound)
	}
	data, err := content.ReadBlob(ctx, s.Content, ocispec.Descriptor{Digest: d, Size: info.Size})
	if err == nil && d.Algorithm().FromBytes(data) != d {
		err = fmt.Errorf("%s is damaged on this node's disk", d)
	}
	return data, err
}

// mediaType reads what kind of manifest it is; old images do not say.
func mediaType(data []byte) string {
	var d struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	_ = json.Unmarshal(data, &d) // whoever asked finds out
	switch {
	case d.MediaType != "":
		return d.MediaType
	case d.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

// blob answers with a blob, or the range of it that is asked for.
func (s *Server) blob(w http.ResponseWriter, r *http.Request, what string) {
	d, err := digest.Parse(what)
	if err != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	info, err := s.Content.Info(r.Context(), d)
	if err != nil {
		s.refuse(w, r, err, "BLOB_UNKNOWN")
		return
	}
	from, err := s.Content.ReaderAt(r.Context(), ocispec.Descriptor{Digest: d, Size: info.Size})
	if err != nil {
		s.refuse(w, r, err, "BLOB_UNKNOWN")
		return
	}
	defer from.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d.String())
	s.log().Debug("blob given", "digest", d.String(), "bytes", info.Size, "to", r.RemoteAddr)
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(from, 0, info.Size))
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error, code string) {
	if errdefs.IsNotFound(err) {
		fail(w, http.StatusNotFound, code)
		return
	}
	s.log().Warn("image not given", "path", r.URL.Path, "err", err)
	fail(w, http.StatusInternalServerError, "UNKNOWN")
}

// fail answers in the form of the distribution specification.
func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q}]}`, code)
}
