package signatures_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/bothy-os/bothy/images/registry"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
)

// guarded is a registry that wants a password, and fails now and then.
type guarded struct {
	host   string
	open   atomic.Bool // while it is filled
	faults atomic.Int32
	asked  atomic.Int32
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{}
	back := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case g.open.Load():
		case user != "site" || password != "secret":
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		case strings.Contains(r.URL.Path, "/manifests/") && g.faults.Add(-1) >= 0:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		default:
			g.asked.Add(1)
		}
		back.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	g.host = strings.TrimPrefix(server.URL, "http://")
	return g
}

// beside reads as a node does: by a directory of registries and a file with credentials.
func beside(registries, credentials string) *signatures.Registries {
	return &signatures.Registries{Client: func(ctx context.Context) (*registry.Client, error) {
		cfg := registry.Config{Places: registry.ContainerdHosts(ctx, registries), Attempts: 3, Wait: time.Millisecond, Keychain: authn.NewMultiKeychain()}
		if credentials != "" {
			var err error
			if cfg.Keychain, err = registry.CredentialsFile(credentials); err != nil {
				return nil, err
			}
		}
		return registry.New(cfg), nil
	}}
}

func TestSignaturesBehindAPassword(t *testing.T) {
	g := newGuarded(t)
	key := cosigntest.NewKey(t)
	repository, err := name.NewRepository(g.host+"/team/app", name.Insecure)
	must(t, err)
	g.open.Store(true)
	digest := cosigntest.Push(t, repository.Tag("1"), mustImage(t))
	payload := cosigntest.Payload(digest)
	cosigntest.AttachLegacy(t, repository, digest, payload, key.Annotations(t, payload))
	cosigntest.AttachBundle(t, repository, digest, key.Bundle(t, digest, cosigntest.SignPredicate))
	g.open.Store(false)

	dir := t.TempDir()
	write := func(path, text string) string {
		t.Helper()
		path = filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	credentials := write("config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, g.host, base64.StdEncoding.EncodeToString([]byte("site:secret"))))
	// Other nodes are named here. They are not where signatures of a registry are looked for.
	write("_default/hosts.toml", "[host.\"http://127.0.0.1:1\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
	// A name that does not exist, which is read elsewhere, from a mirror that is off and one that is not.
	write("registry.example.org/hosts.toml", "server = \"http://"+g.host+"\"\n[host.\"http://127.0.0.1:1\"]\n  capabilities = [\"pull\"]\n[host.\"http://"+g.host+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
	write("push.example.org/hosts.toml", "server = \"http://"+g.host+"\"\n[host.\"http://"+g.host+"\"]\n  capabilities = [\"push\"]\n")

	believed := byKey(t, key)
	for what, image := range map[string]string{"the registry itself": g.host + "/team/app:1", "a mirror": "registry.example.org/team/app:1"} {
		g.faults.Store(2) // it is asked again
		found, err := beside(dir, credentials).Collect(t.Context(), image, digest)
		if err != nil || len(found.Bundles) != 1 || len(found.Payloads) != 1 {
			t.Fatalf("%s: %d and %d, %v", what, len(found.Bundles), len(found.Payloads), err)
		}
		if _, err := cosign.Check(found, digest, believed); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if data, err := beside(dir, credentials).Manifest(t.Context(), image, digest); err != nil || len(data) == 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
	nothing := "sha256:" + strings.Repeat("2", 64)
	if found, err := beside(dir, credentials).Collect(t.Context(), g.host+"/team/app:1", nothing); err != nil || !found.Empty() {
		t.Errorf("of what has none: %+v, %v", found, err)
	}
	if _, err := beside(dir, credentials).Manifest(t.Context(), g.host+"/team/app:1", nothing); !errors.Is(err, cosign.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	g.asked.Store(0)
	if found, err := beside(dir, "").Collect(t.Context(), g.host+"/team/app:1", digest); err == nil || !found.Empty() || !strings.Contains(err.Error(), "401 Unauthorized") {
		t.Errorf("without a password: %+v, %v", found, err)
	}
	if n := g.asked.Load(); n != 0 {
		t.Errorf("without a password %d requests were let in", n)
	}
	if _, err := beside(dir, credentials).Collect(t.Context(), "nowhere/:::", digest); err == nil {
		t.Error("a name that is none was asked for")
	}
	write("broken.example.org/hosts.toml", "[host")
	if _, err := beside(dir, credentials).Collect(t.Context(), "broken.example.org/app:1", digest); err == nil || !strings.Contains(err.Error(), "broken.example.org") {
		t.Errorf("settings that cannot be read: %v", err)
	}
}
