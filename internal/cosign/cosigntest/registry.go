package cosigntest

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BundleType is the type of bundles in a registry.
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Repository serves a repository on loopback. With referrers the registry knows
// what refers to a digest; without, clients fall back to a tag.
func Repository(t testing.TB, path string, referrers bool) name.Repository {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers)))
	t.Cleanup(server.Close)
	r, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://")+"/"+path, name.Insecure)
	must(t, err)
	return r
}

// Push pushes an image and returns its digest.
func Push(t testing.TB, ref name.Reference, image v1.Image) string {
	t.Helper()
	must(t, remote.Write(ref, image))
	digest, err := image.Digest()
	must(t, err)
	return digest.String()
}

// AttachLegacy adds a signed payload to the tag with the signatures of digest.
func AttachLegacy(t testing.TB, r name.Repository, digest string, payload []byte, annotations map[string]string) {
	t.Helper()
	tag := r.Tag(strings.Replace(digest, ":", "-", 1) + ".sig")
	image, err := remote.Image(tag)
	if err != nil {
		image = mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: annotations,
		MediaType:   "application/vnd.dev.cosign.simplesigning.v1+json",
	})
	must(t, err)
	must(t, remote.Write(tag, image))
}

// AttachBundle adds a bundle that refers to digest.
func AttachBundle(t testing.TB, r name.Repository, digest string, bundle []byte) {
	t.Helper()
	subject, err := remote.Head(r.Digest(digest))
	must(t, err)
	l := static.NewLayer(bundle, BundleType)
	must(t, remote.WriteLayer(r, l))
	config := static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
	must(t, remote.WriteLayer(r, config))
	describe := func(l v1.Layer, mediaType types.MediaType) v1.Descriptor {
		d, err := l.Digest()
		must(t, err)
		size, err := l.Size()
		must(t, err)
		return v1.Descriptor{MediaType: mediaType, Digest: d, Size: size}
	}
	text, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": BundleType,
		"config": describe(config, "application/vnd.oci.empty.v1+json"), "layers": []v1.Descriptor{describe(l, BundleType)},
		"subject": v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
	})
	must(t, err)
	m := manifest(text)
	d, _, err := v1.SHA256(strings.NewReader(string(text)))
	must(t, err)
	must(t, remote.Put(r.Digest(d.String()), m))
	if _, err := remote.Referrers(r.Digest(digest)); err != nil {
		t.Fatal(fmt.Errorf("the registry knows no referrers: %w", err))
	}
}

// manifest is a manifest as it is.
type manifest []byte

func (m manifest) RawManifest() ([]byte, error)        { return m, nil }
func (m manifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
