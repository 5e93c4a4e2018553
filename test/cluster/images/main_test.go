// Package images shows the image policy on a real node: what was not signed does
// not run, whoever asks for it and wherever.
package images

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
	"github.com/bothy-os/bothy/test/cluster"
)

const (
	// patience is for what takes seconds on an idle machine and many on a loaded one.
	patience  = 90 * time.Second
	refName   = "org.opencontainers.image.ref.name"
	signature = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// carrier is an OCI layout that somebody carried to the site.
type carrier struct {
	t       *testing.T
	dir     string
	path    layout.Path
	digests map[string]string
}

func newCarrier(t *testing.T, dir string) *carrier {
	t.Helper()
	path, err := layout.Write(dir, empty.Index)
	must(t, err)
	return &carrier{t: t, dir: dir, path: path, digests: map[string]string{}}
}

// know notes the digests of what another layout has.
func (c *carrier) know(dir string) map[string]v1.Image {
	c.t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	must(c.t, err)
	manifest, err := index.IndexManifest()
	must(c.t, err)
	out := map[string]v1.Image{}
	for _, m := range manifest.Manifests {
		name := m.Annotations[refName]
		image, err := index.Image(m.Digest)
		must(c.t, err)
		out[name], c.digests[name] = image, m.Digest.String()
	}
	return out
}

// vary adds an image that is like another, but for its last layer.
func (c *carrier) vary(name string, image v1.Image) v1.Image {
	c.t.Helper()
	varied := vary(c.t, image)
	digest, err := varied.Digest()
	must(c.t, err)
	c.digests[name] = digest.String()
	must(c.t, c.path.AppendImage(varied, layout.WithAnnotations(map[string]string{refName: name})))
	return varied
}

// vary makes an image that is like another, but for its last layer.
func vary(t *testing.T, image v1.Image) v1.Image {
	t.Helper()
	content, err := random.Layer(64, types.OCILayer)
	must(t, err)
	varied, err := mutate.AppendLayers(image, content)
	must(t, err)
	return varied
}

// sign attaches a signature of one image to another.
func (c *carrier) sign(name, of string, key *cosigntest.Key) {
	c.t.Helper()
	payload := cosigntest.Payload(c.digests[of])
	signed, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer: static.NewLayer(payload, signature), MediaType: signature, Annotations: key.Annotations(c.t, payload),
	})
	must(c.t, err)
	tag := name[:strings.LastIndex(name, ":")] + ":" + strings.Replace(c.digests[name], ":", "-", 1) + ".sig"
	must(c.t, c.path.AppendImage(signed, layout.WithAnnotations(map[string]string{refName: tag})))
}

func (c *carrier) names() []string { return slices.Sorted(maps.Keys(c.digests)) }

// policy demands signatures by a key for all images of the site, and denies one
// digest.
func policy(t *testing.T, key *cosigntest.Key, denied string) string {
	t.Helper()
	pem := strings.ReplaceAll(strings.TrimSpace(string(key.PEM(t))), "\n", "\n          ")
	return fmt.Sprintf(`apiVersion: bothy.dev/v1alpha1
kind: ImageTrust
metadata:
  name: site
spec:
  noMatch: deny
  deny:
    - digest: %s
      reason: CVE-2026-0001
---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: signed-by-the-team
spec:
  images:
    - glob: "bothy.local/**"
  authorities:
    - name: team
      key:
        data: |
          %s
`, denied, pem)
}

// pod is a pod that serves, from an image.
func pod(name, image string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q},
		"spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": %q, "args": ["serve"],
			"env": [{"name": "POD_NAME", "value": "x"}]}]}}`, name, image)
}

func ready(t *testing.T, k *cluster.Kubectl, name string) {
	t.Helper()
	k.Run(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout", patience.String())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
