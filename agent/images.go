package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/bothy-os/bothy/images/enforce"
	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/peer"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/registry"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/images/verify"
	"github.com/bothy-os/bothy/node"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/reconciler"
)

var (
	// imagesDir holds bundles, fetched signatures, and the policy in force.
	imagesDir = filepath.Join(boot.StateDir, "images")
	// imagePolicyFile is how the policy gets from the agent into bothy kube.
	imagePolicyFile = filepath.Join(imagesDir, "policy.json")
)

// checkImagePolicy refuses a commit whose image policy would not be obeyed, or
// under which no pod could start.
func checkImagePolicy(files fs.FS, layouts []string) error {
	found, err := policy.Read(files)
	if err != nil || found == nil {
		return err
	}
	p, err := policy.Compile(found)
	if err != nil {
		return err
	}
	g := gate.New(gateConfig(layouts, slog.New(slog.DiscardHandler)))
	for _, dir := range layouts {
		l, err := layout.Open(dir)
		if err != nil {
			continue // the importer says what is wrong with it
		}
		for _, img := range l.Images {
			if img.Name != node.SandboxImage {
				continue
			}
			v := g.Try(p, verify.Image{Name: img.Name, Digests: []string{img.Descriptor.Digest.String()}})
			if err := v.Err(); err != nil {
				return fmt.Errorf("%s: no pod could start: %w; sign the sandbox image, or allow its digest", policy.File, err)
			}
			return nil
		}
	}
	return nil
}

// gateConfig says where a gate of this node has its things.
func gateConfig(layouts []string, log *slog.Logger) gate.Config {
	return gate.Config{
		File: imagePolicyFile, Signatures: signatures.NewStore(filepath.Join(imagesDir, "signatures")),
		Layouts: append(slices.Clone(layouts), imagesDir), Log: log,
	}
}

// enforceImagePolicy puts the policy of an accepted commit in force, before
// anything is started that could run an image.
func enforceImagePolicy(ctx context.Context, snap *reconciler.Snapshot) error {
	files, err := policy.Read(snap.Files)
	if err != nil {
		return fmt.Errorf("read the image policy of commit %s: %w", snap.Commit, err)
	}
	if err := gate.Write(imagePolicyFile, snap.Commit, files); err != nil {
		return err
	}
	// It is in force. A question makes bothy kube, if it runs, say so in its
	// status at once.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if body, err := call(ctx, kubeSocket, http.MethodGet, "/v1/images/policy", nil); err == nil {
		body.Close()
	}
	return nil
}

// imageGuard is the image policy inside bothy kube.
type imageGuard struct {
	gate     *gate.Gate
	guard    *enforce.Guard
	siblings *peer.Siblings
}

func newImageGuard(c *KubeConfig, log *slog.Logger) imageGuard {
	log = log.With("wing", "images")
	g := gate.New(gateConfig(withStore(c.ImageLayouts), log))
	siblings := newSiblings(c, log)
	return imageGuard{gate: g, siblings: siblings, guard: enforce.New(enforce.Config{
		Gate: g, Root: filepath.Join(boot.StateDir, "containerd"), Shim: filepath.Join(c.BinDir, "containerd-shim-runc-v2"), Runc: filepath.Join(c.BinDir, "runc"),
		Sources: []enforce.Source{siblings, &signatures.Registries{Client: func(ctx context.Context) (*registry.Client, error) { return newRegistryClient(ctx, log) }}},
		Fetch:   siblings.Fetch,
	})}
}

const (
	// kubeletCredentials is where the kubelet looks for credentials that pods do not bring: in the format of docker's
	// config.json, in its own directory.
	kubeletCredentials = "/var/lib/kubelet/config.json" //nolint:gosec // a path
	// signatureAttempts and signatureWait are for signatures beside an image that is pulled at this moment: whoever
	// pulls tries again, too.
	signatureAttempts = 3
	signatureWait     = 500 * time.Millisecond
)

// registriesDir has the settings of registries, in the form that containerd's documentation describes.
var registriesDir = filepath.Join(imagesDir, "registries")

// newRegistryClient reads registries where containerd does, with the node's credentials.
func newRegistryClient(ctx context.Context, log *slog.Logger) (*registry.Client, error) {
	cfg := registry.Config{
		Keychain: authn.NewMultiKeychain(), Places: registry.ContainerdHosts(ctx, registriesDir),
		Attempts: signatureAttempts, Wait: signatureWait, Log: log,
	}
	credentials, err := registry.CredentialsFile(kubeletCredentials)
	switch {
	case err == nil:
		cfg.Keychain = credentials
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return registry.New(cfg), nil
}

// judgeImport is asked by the importer.
func (i imageGuard) judgeImport(name string, digests []string) error {
	return i.gate.Check(gate.Import, verify.Image{Name: name, Digests: digests})
}

// servePolicy says what is in force.
func (i imageGuard) servePolicy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(i.gate.Status()) // the client has gone away
}

// explain judges an image that containerd has, or an artifact that a bundle brought, which only the store has.
func (i imageGuard) explain(ctx context.Context, name string) (*verify.Verdict, error) {
	if index, err := nodeImages().Open(); err == nil {
		for _, a := range index.Standalone() {
			if a.Name == name {
				return i.gate.Explain(verify.Image{Name: name, Digests: []string{a.Descriptor.Digest.String()}})
			}
		}
	}
	return i.guard.Explain(ctx, name)
}

// serveVerdict explains what the policy says about an image of the node.
func (i imageGuard) serveVerdict(w http.ResponseWriter, r *http.Request) {
	v, err := i.explain(r.Context(), r.URL.Query().Get("image"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone away
}

// serveImageVerdict hands the question to bothy kube.
func (h *hall) serveImageVerdict(w http.ResponseWriter, r *http.Request) {
	body, err := call(r.Context(), kubeSocket, http.MethodGet, "/v1/images/verdict", url.Values{"image": {r.URL.Query().Get("image")}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	defer body.Close()
	var v json.RawMessage
	if err := json.NewDecoder(body).Decode(&v); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(v) // the client has gone away
}

// ImageVerdict asks the node what its policy says about an image; nil if it has
// none.
func (c *Client) ImageVerdict(ctx context.Context, image string) (*verify.Verdict, error) {
	body, err := call(ctx, c.socket, http.MethodGet, "/v1/images/verdict", url.Values{"image": {image}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var v *verify.Verdict
	return v, json.NewDecoder(body).Decode(&v)
}

var (
	imagesDenied   = prometheus.NewDesc("bothy_images_denied_total", "Images that the policy kept out, by the point at which.", []string{"point"}, nil)
	imagesAllowed  = prometheus.NewDesc("bothy_images_allowed_total", "Questions about images that the policy answered with yes.", nil, nil)
	imagesWarned   = prometheus.NewDesc("bothy_images_warned_total", "Those of them with a warning.", nil, nil)
	imagePolicyNow = prometheus.NewDesc("bothy_image_policy_in_force", "1 while the site has an image policy in force.", nil, nil)
)

// imageMetrics collects what the gate counts. It is in the other process, whose
// status the agent follows.
type imageMetrics struct{ status func() *gate.Status }

func (m imageMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{imagesDenied, imagesAllowed, imagesWarned, imagePolicyNow} {
		out <- d
	}
}

func (m imageMetrics) Collect(out chan<- prometheus.Metric) {
	st := m.status()
	if st == nil {
		return
	}
	for point, n := range st.Denied {
		out <- prometheus.MustNewConstMetric(imagesDenied, prometheus.CounterValue, float64(n), point)
	}
	out <- prometheus.MustNewConstMetric(imagesAllowed, prometheus.CounterValue, float64(st.Allowed))
	out <- prometheus.MustNewConstMetric(imagesWarned, prometheus.CounterValue, float64(st.Warned))
	inForce := 0.0
	if st.InForce {
		inForce = 1
	}
	out <- prometheus.MustNewConstMetric(imagePolicyNow, prometheus.GaugeValue, inForce)
}

// imageStatus is what the gate says; nil while bothy kube does not run.
func (h *hall) imageStatus() *gate.Status {
	running, _ := h.running()
	if running == nil {
		return nil
	}
	if kube, _ := running.child.Status(); kube != nil {
		return kube.Images
	}
	return nil
}
