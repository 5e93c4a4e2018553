package registry

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// site is a registry with one image, behind something that can misbehave.
type site struct {
	host  string
	layer ocispec.Descriptor
	image v1.Hash
	back  http.Handler
	// asked counts requests for the layer.
	asked atomic.Int32
	// between sees each request before the registry does; true ends it.
	between func(w http.ResponseWriter, r *http.Request) bool
}

const layerSize = 3 << 20

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	s.back = ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(false))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.layer.Digest != "" && strings.HasSuffix(r.URL.Path, s.layer.Digest.String()) {
			s.asked.Add(1)
		}
		if s.between == nil || !s.between(w, r) {
			s.back.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s.host = strings.TrimPrefix(server.URL, "http://")
	image, err := random.Image(layerSize, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(s.host + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	m, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	s.image, err = image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s.layer = ocispec.Descriptor{MediaType: string(m.Layers[0].MediaType), Digest: digest.Digest(m.Layers[0].Digest.String()), Size: m.Layers[0].Size}
	return s
}

func quick(c Config) *Client {
	c.Wait = time.Millisecond
	if c.Keychain == nil {
		c.Keychain = authn.NewMultiKeychain()
	}
	return New(c)
}

func (s *site) read(t *testing.T, c *Client, offset int64) ([]byte, error) {
	t.Helper()
	r, err := c.Blob(t.Context(), s.host+"/team/app", s.layer, offset)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestResolveReadAndMissing(t *testing.T) {
	s := newSite(t)
	c := quick(Config{})
	desc, err := c.Resolve(t.Context(), s.host+"/team/app:1")
	if err != nil || desc.Digest.String() != s.image.String() {
		t.Fatalf("resolved %+v, %v", desc, err)
	}
	if data, err := c.Manifest(t.Context(), s.host+"/team/app", desc); err != nil || digest.FromBytes(data) != desc.Digest {
		t.Errorf("manifest: %v", err)
	}
	if data, err := s.read(t, c, 0); err != nil || digest.FromBytes(data) != s.layer.Digest {
		t.Errorf("layer: %v", err)
	}
	if _, err := c.Resolve(t.Context(), s.host+"/team/app:2"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), s.host) {
		t.Errorf("a tag that is not there: %v", err)
	}
	if list, err := c.Referrers(t.Context(), s.host+"/team/app", desc.Digest); err != nil || len(list) != 0 {
		t.Errorf("referrers of what has none, in a registry without that API: %v, %v", list, err)
	}
}

// breaking sends no more than a piece of the layer per connection.
func (s *site) breaking(piece int, ranges bool) {
	s.between = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, s.layer.Digest.String()) {
			return false
		}
		if !ranges {
			r.Header.Del("Range")
		}
		recorder := httptest.NewRecorder()
		s.back.ServeHTTP(recorder, r)
		for k, v := range recorder.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(recorder.Code)
		body := recorder.Body.Bytes()
		_, _ = w.Write(body[:min(len(body), piece)])
		if len(body) > piece {
			panic(http.ErrAbortHandler)
		}
		return true
	}
}

func TestABrokenConnectionGoesOnWhereItWas(t *testing.T) {
	for name, ranges := range map[string]bool{"with ranges": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			piece := layerSize/4 + 1000
			if !ranges {
				piece = layerSize * 2 // a server without ranges that breaks early never ends
			}
			s.breaking(piece, ranges)
			for _, offset := range []int64{0, 100_000} {
				data, err := s.read(t, quick(Config{}), offset)
				if err != nil || int64(len(data)) != s.layer.Size-offset {
					t.Fatalf("from %d: %d bytes, %v", offset, len(data), err)
				}
				if offset == 0 && digest.FromBytes(data) != s.layer.Digest {
					t.Error("the pieces do not fit")
				}
			}
			if ranges && s.asked.Load() < 6 {
				t.Errorf("only %d connections: nothing broke", s.asked.Load())
			}
		})
	}
}

func TestWhatHelpsIsTriedAgainAndWhatDoesNotIsNot(t *testing.T) {
	for code, want := range map[int]int32{http.StatusServiceUnavailable: 4, http.StatusTooManyRequests: 4, http.StatusForbidden: 1, http.StatusNotFound: 1} {
		s := newSite(t)
		s.between = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, s.layer.Digest.String()) {
				return false
			}
			http.Error(w, "not now", code)
			return true
		}
		_, err := s.read(t, quick(Config{Attempts: 4}), 0)
		var status *StatusError
		if !errors.As(err, &status) || status.Code != code || !strings.Contains(err.Error(), "not now") {
			t.Errorf("%d: %v", code, err)
		}
		if got := s.asked.Load(); got != want {
			t.Errorf("%d: asked %d times, want %d", code, got, want)
		}
	}
}

func TestContentThatLiesIsRefused(t *testing.T) {
	for what, answer := range map[string]func(whole []byte) []byte{
		"other bytes": func(w []byte) []byte { w[len(w)/2] ^= 1; return w },
		"more bytes":  func(w []byte) []byte { return append(w, 0) },
	} {
		s := newSite(t)
		whole, err := s.read(t, quick(Config{}), 0)
		if err != nil {
			t.Fatal(err)
		}
		s.between = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, s.layer.Digest.String()) {
				return false
			}
			body := answer(bytes.Clone(whole))
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
			return true
		}
		if _, err := s.read(t, quick(Config{}), 0); err == nil || !strings.Contains(err.Error(), s.layer.Digest.String()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := newSite(t)
	s.between = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		_, _ = w.Write([]byte(`{"schemaVersion":2}`))
		return true
	}
	desc := ocispec.Descriptor{Digest: digest.Digest(s.image.String())}
	if _, err := quick(Config{}).Manifest(t.Context(), s.host+"/team/app", desc); err == nil || !strings.Contains(err.Error(), "hashes to") {
		t.Errorf("a manifest that was exchanged: %v", err)
	}
}

func TestMirrorsGoFirstAndMayFail(t *testing.T) {
	s := newSite(t)
	empty := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	defer empty.Close()
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	repo := "registry.example.org/team/app"
	c := quick(Config{Attempts: 1, Registries: map[string]Registry{
		"registry.example.org": {Mirrors: []string{dead.URL, empty.URL, "http://" + s.host}, OnlyMirrors: true},
	}})
	desc, err := c.Resolve(t.Context(), repo+":1")
	if err != nil || desc.Digest.String() != s.image.String() {
		t.Fatalf("through the third mirror: %+v, %v", desc, err)
	}
	r, err := c.Blob(t.Context(), repo, s.layer, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); err != nil || digest.FromBytes(data) != s.layer.Digest {
		t.Errorf("layer: %v", err)
	}
}

func TestCredentialsAndOwnAuthority(t *testing.T) {
	back := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "site" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		back.ServeHTTP(w, r)
	}))
	defer server.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(authority, text, 0o644); err != nil {
		t.Fatal(err)
	}
	const registry = "registry.example.org"
	resolve := func(cas []string, keychain authn.Keychain, inline ...string) error {
		t.Helper()
		settings := map[string]Registry{registry: {CAs: strings.Join(inline, "")}}
		if err := errors.Join(ParseMirrors(settings, []string{registry + "=" + server.URL}), ParseCAs(settings, cas)); err != nil {
			t.Fatal(err)
		}
		r := settings[registry]
		r.OnlyMirrors = true
		_, err := quick(Config{Attempts: 1, Registries: map[string]Registry{registry: r}, Keychain: keychain}).Resolve(t.Context(), registry+"/app:1")
		return err
	}
	known := authn.NewKeychainFromHelper(helper{})
	// That there is no such image can be known by whoever was let in only.
	if err := resolve([]string{registry + "=" + authority}, known); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with credentials and authority: %v", err)
	}
	if err := resolve(nil, known, string(text)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with the authority as text: %v", err)
	}
	if err := resolve(nil, known, "no PEM"); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("with a text that is no authority: %v", err)
	}
	if err := resolve(nil, known); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the authority: %v", err)
	}
	if err := resolve([]string{registry + "=" + authority}, authn.NewMultiKeychain()); err == nil || !strings.Contains(err.Error(), "docker configuration") {
		t.Errorf("without credentials: %v", err)
	}
}

type helper struct{}

func (helper) Get(string) (user, password string, err error) { return "site", "secret", nil }

func TestTheRateIsBounded(t *testing.T) {
	s := newSite(t)
	start := time.Now()
	if _, err := s.read(t, quick(Config{BytesPerSecond: 4 * layerSize}), 0); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("3 MiB at 12 MiB per second took %s", took)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	s := newSite(t)
	s.between = func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "later", http.StatusServiceUnavailable)
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := New(Config{Wait: time.Hour, Keychain: authn.NewMultiKeychain()})
	if _, err := c.Resolve(ctx, s.host+"/team/app:1"); err == nil {
		t.Error("it was resolved")
	}
}
