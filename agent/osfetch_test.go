package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/images/build"
	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/store"
	"github.com/bothy-os/bothy/os/image"
	"github.com/bothy-os/bothy/reconciler"
)

// osBench is a machine, an image of an operating system as `bothy os build` makes it, and its registry, which has
// nothing.
type osBench struct {
	*osUpdates
	t *testing.T
	// layout is what was built, spec what the commit names.
	layout string
	spec   v1alpha1.OSSpec
	// asked counts the requests to the registry.
	asked atomic.Int64
}

const (
	bootFile     = "boot file"
	rootFileSize = 10000
)

func newOSBench(t *testing.T, configType string) *osBench {
	t.Helper()
	b := &osBench{t: t, layout: t.TempDir()}
	back := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		back.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	blobs := bundle.Blobs{Dir: b.layout}
	put := func(kind string, data []byte) ocispec.Descriptor {
		d, err := blobs.Put(kind, data)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config:      put(configType, []byte("{}")),
		Layers:      []ocispec.Descriptor{put(string(image.MediaTypeBootFile), []byte(bootFile)), put(string(image.MediaTypeRoot), bytes.Repeat([]byte{'r'}, rootFileSize))},
		Annotations: map[string]string{image.AnnotationFlavour: "vm"},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := put(ocispec.MediaTypeImageManifest, text)
	d.Annotations = map[string]string{ocispec.AnnotationRefName: "devel"}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{ocispec.ImageIndexFile: index, ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(b.layout, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.spec = v1alpha1.OSSpec{Image: strings.TrimPrefix(server.URL, "http://") + "/bothy/os@" + d.Digest.String()}
	b.osUpdates = &osUpdates{
		log: slog.New(slog.DiscardHandler), changed: make(chan struct{}),
		places: osPlaces(t.TempDir()), release: map[string]string{"VARIANT_ID": "vm"},
	}
	return b
}

// comes fetches the image under a policy, "" for none, and compares it.
func (b *osBench) comes(rules string) error {
	b.t.Helper()
	files := fstest.MapFS{}
	if rules != "" {
		files[policy.File] = &fstest.MapFile{Data: []byte(rules)}
	}
	a, err := b.fetch(b.t.Context(), &reconciler.Snapshot{Files: files}, b.spec)
	if err != nil {
		return err
	}
	defer a.Close()
	if string(a.image.BootFile) != bootFile || a.image.RootSize != rootFileSize {
		b.t.Errorf("%+v", a.image)
	}
	a.discard()
	if _, err := os.Stat(b.places.staging()); err == nil {
		b.t.Error("it is still there after it was written elsewhere")
	}
	return nil
}

// seeded has somebody bring the layout along with the boot configuration.
func (b *osBench) seeded() {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(b.places.seed()), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(b.layout, b.places.seed()); err != nil {
		b.t.Fatal(err)
	}
}

// carried has somebody make a bundle and import it.
func (b *osBench) carried() {
	b.t.Helper()
	l, err := layout.Open(b.layout)
	if err != nil {
		b.t.Fatal(err)
	}
	file := filepath.Join(b.t.TempDir(), "site.tar")
	if _, err := bundle.Create(b.t.Context(), bundle.Options{
		To: file, Artifacts: []bundle.Artifact{{Reference: b.spec.Image, Type: string(image.MediaTypeConfig)}}, Sources: []bundle.Source{bundle.LayoutByDigest(l)},
	}); err != nil {
		b.t.Fatal(err)
	}
	if _, err := store.New(b.places.store(), "").Import(b.t.Context(), file, nil, nil); err != nil {
		b.t.Fatal(err)
	}
}

// published has the registry have it.
func (b *osBench) published() {
	b.t.Helper()
	ref, err := name.ParseReference(b.spec.Image)
	if err != nil {
		b.t.Fatal(err)
	}
	hash, err := v1.NewHash(b.spec.Digest())
	if err != nil {
		b.t.Fatal(err)
	}
	img, err := gcrlayout.Path(b.layout).Image(hash)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// signed signs the layout and returns a policy that wants it so.
func (b *osBench) signed(sign bool) (rules string) {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		b.t.Fatal(err)
	}
	file := filepath.Join(b.t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		b.t.Fatal(err)
	}
	signer, err := build.ReadKey(file, nil)
	if err == nil && sign {
		_, err = build.Sign(b.layout, signer, nil)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	quoted, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	if err != nil {
		b.t.Fatal(err)
	}
	return "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images: [{glob: \"**\"}]\n  authorities: [{key: {data: " + string(quoted) + "}}]\n"
}

// damage changes a byte of a blob of a layout.
func (b *osBench) damage(dir, content string) digest.Digest {
	b.t.Helper()
	d := digest.FromString(content)
	file := bundle.Blobs{Dir: dir}.Path(d)
	if err := os.Chmod(file, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("!"+content[1:]), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return d
}

// A machine without a network takes the image from where somebody brought it, with its signatures, and asks nobody.
func TestAnImageComesWithoutARegistry(t *testing.T) {
	for way, bring := range map[string]func(*osBench){"seed": (*osBench).seeded, "bundle": (*osBench).carried} {
		t.Run(way, func(t *testing.T) {
			b := newOSBench(t, string(image.MediaTypeConfig))
			rules := b.signed(true)
			bring(b)
			for _, r := range []string{"", rules} {
				if err := b.comes(r); err != nil {
					t.Error(err)
				}
			}
			if n := b.asked.Load(); n > 0 {
				t.Errorf("the registry was asked %d times", n)
			}
		})
		t.Run(way+", not signed", func(t *testing.T) {
			b := newOSBench(t, string(image.MediaTypeConfig))
			rules := b.signed(false)
			bring(b)
			if err := b.comes(rules); err == nil || !strings.Contains(err.Error(), "has no signature") {
				t.Errorf("%v", err)
			}
		})
	}
}

// What went bad on the disk is not used, and comes from the registry if that has it.
func TestADamagedImageComesFromElsewhere(t *testing.T) {
	for what, content := range map[string]string{"boot file": bootFile, "root": strings.Repeat("r", rootFileSize)} {
		t.Run(what, func(t *testing.T) {
			b := newOSBench(t, string(image.MediaTypeConfig))
			b.carried()
			bad := b.damage(b.places.store(), content)
			if err := b.comes(""); err == nil || !strings.Contains(err.Error(), bad.String()) {
				t.Errorf("a damaged image was used: %v", err)
			}
			b.published()
			if err := b.comes(""); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnImageThatNobodyHas(t *testing.T) {
	b := newOSBench(t, string(image.MediaTypeConfig))
	b.carried()
	b.spec.Image = b.spec.Image[:len(b.spec.Image)-4] + "0000"
	if err := b.comes(""); err == nil || !strings.Contains(err.Error(), "find the operating system") {
		t.Errorf("%v", err)
	}
}

func TestWhatIsNoOperatingSystemIsRefused(t *testing.T) {
	b := newOSBench(t, ocispec.MediaTypeImageConfig)
	b.seeded()
	if err := b.comes(""); err == nil || !strings.Contains(err.Error(), "no operating system of bothy's") {
		t.Errorf("%v", err)
	}
}

func TestTrimTag(t *testing.T) {
	for name, want := range map[string]string{
		"registry.example.org:5000/os:v1": "registry.example.org:5000/os", "registry.example.org:5000/os": "registry.example.org:5000/os", "registry.example.org/a/os": "registry.example.org/a/os",
	} {
		if got := trimTag(name); got != want {
			t.Errorf("%s becomes %s", name, got)
		}
	}
}
