package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/image-spec/identity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
	"github.com/bothy-os/bothy/test/cluster"
)

const (
	// local are names that no registry has.
	local   = "bothy.local"
	builder = "builder@example.com"
	issuer  = "https://issuer.example.com"
	spdx    = "https://spdx.dev/Document"
)

// attached is what somebody attached to an image.
type attached struct {
	// payload is what annotations hold a signature of.
	payload     []byte
	annotations map[string]string
	bundle      []byte
}

// attack is an image that must not run. Its twin is signed as the policy wants.
type attack struct {
	name, policy string
	attach       func(t *testing.T, s *signers, digest, other string) attached
	denied       string // the reason
}

// signers are those whom the policy knows, and those whom it does not.
type signers struct {
	key, stranger       *cosigntest.Key
	sigstore, strangers *cosigntest.Sigstore
}

func (s *signers) byKey(t *testing.T, k *cosigntest.Key, of string) attached {
	t.Helper()
	payload := cosigntest.Payload(of)
	return attached{payload: payload, annotations: k.Annotations(t, payload)}
}

// twin is what the policy of that name wants.
func (s *signers) twin(t *testing.T, policy, digest string) attached {
	t.Helper()
	switch policy {
	case "ci":
		return attached{bundle: s.sigstore.Bundle(t, builder, issuer, digest, cosigntest.SignPredicate)}
	case "sbom":
		return attached{bundle: s.key.BundleOf(t, cosigntest.StatementThat(digest, spdx, `{"packages":["good"]}`))}
	}
	return s.byKey(t, s.key, digest)
}

// deniedDigest is the attack whose digest is on the deny list.
const deniedDigest = "denied"

var attackTable = []attack{
	{"unsigned", "key", func(*testing.T, *signers, string, string) attached { return attached{} }, "has no signature"},
	{"wrong-key", "key", func(t *testing.T, s *signers, d, _ string) attached { return s.byKey(t, s.stranger, d) }, "it is not by any of the keys"},
	{"other-digest", "key", func(t *testing.T, s *signers, _, other string) attached { return s.byKey(t, s.key, other) }, "it is a signature of sha256:"},
	{deniedDigest, "key", func(t *testing.T, s *signers, d, _ string) attached { return s.byKey(t, s.key, d) }, "is on the deny list: CVE-2026-0001"},
	{"fulcio", "ci", func(t *testing.T, s *signers, d, _ string) attached {
		return attached{bundle: s.strangers.Bundle(t, builder, issuer, d, cosigntest.SignPredicate)}
	}, "has no trusted signature"},
	{"identity", "ci", func(t *testing.T, s *signers, d, _ string) attached {
		return attached{bundle: s.sigstore.Bundle(t, "mallory@example.com", issuer, d, cosigntest.SignPredicate)}
	}, "no matching CertificateIdentity"},
	{"expired", "ci", func(t *testing.T, s *signers, d, _ string) attached {
		return attached{bundle: s.sigstore.Late().Bundle(t, builder, issuer, d, cosigntest.SignPredicate)}
	}, "has no trusted signature"},
	{"unlogged", "ci", func(t *testing.T, s *signers, d, _ string) attached {
		p := cosigntest.Payload(d)
		return attached{payload: p, annotations: s.sigstore.Annotations(t, builder, issuer, p, false)}
	}, "has no trusted signature"},
	{"other-subject", "sbom", func(t *testing.T, s *signers, _, other string) attached {
		return attached{bundle: s.key.BundleOf(t, cosigntest.StatementThat(other, spdx, `{"packages":["good"]}`))}
	}, "does not match"},
	{"predicate", "sbom", func(t *testing.T, s *signers, d, _ string) attached {
		return attached{bundle: s.key.BundleOf(t, cosigntest.StatementThat(d, spdx, `{"packages":["evil"]}`))}
	}, "does not satisfy the policy"},
}

func (a attack) at(host string) string { return host + "/" + a.policy + "/" + a.name }

// twins are images that may run, one for each policy.
var twins = []attack{{name: "twin", policy: "key"}, {name: "twin", policy: "ci"}, {name: "twin", policy: "sbom"}}

// rules is the policy of the site.
func (s *signers) rules(t *testing.T, denied string) string {
	t.Helper()
	pem := strings.ReplaceAll(strings.TrimSpace(string(s.key.PEM(t))), "\n", "\n            ")
	rule := func(name, globs, authority string) string {
		return fmt.Sprintf("---\napiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: %s}\nspec:\n  images: [{glob: %q}, {glob: %q}%s]\n  authorities:\n    - name: %s\n%s",
			name, local+"/"+name+"/**", registryHost+"/"+name+"/**", globs, name, authority)
	}
	key := "      key:\n        data: |\n            " + pem + "\n"
	return fmt.Sprintf("apiVersion: bothy.dev/v1alpha1\nkind: ImageTrust\nmetadata: {name: site}\nspec:\n  deny: [{digest: %q, reason: CVE-2026-0001}]\n", denied) +
		rule("key", `, {glob: "`+local+`/*"}`, key) +
		rule("ci", "", fmt.Sprintf("      keyless: {identities: [{issuer: %q, subject: %q}]}\n", issuer, builder)) +
		rule("sbom", "", key+"      attestations: [{name: sbom, predicateType: spdx, policy: {type: cel, data: 'predicate.packages.all(p, p != \"evil\")'}}]\n")
}

// assault is a node with a policy, everything that must not run, and a registry in the node's network.
type assault struct {
	*cluster.Node
	*signers
	kubectl *cluster.Kubectl
	repo    *cluster.Repo
	plain   v1.Image            // what all are variations of
	images  map[string]v1.Image // by policy/name
	first   *carrier
	shop    *shop
}

// newAssault has everything but the node running.
func newAssault(t *testing.T) (a *assault, base *carrier) {
	t.Helper()
	a = &assault{
		signers: &signers{cosigntest.NewKey(t), cosigntest.NewKey(t), cosigntest.NewSigstore(t), cosigntest.NewSigstore(t)},
		repo:    cluster.NewRepo(t, false, nil), images: map[string]v1.Image{},
	}
	a.Node = cluster.NodeFor(t, a.repo)
	base = newCarrier(t, filepath.Join(t.TempDir(), "base"))
	base.know(a.Paths.Images)
	a.plain = base.know(a.Paths.TestImages)["bothy.local/toolbox:1"]
	for _, name := range base.names() {
		base.sign(name, name, a.key)
	}
	a.first = newCarrier(t, filepath.Join(t.TempDir(), "first"))
	for _, x := range append(append([]attack{}, attackTable...), twins...) {
		name := x.at(local) + ":1"
		a.images[x.policy+"/"+x.name] = a.first.vary(name, a.plain)
		a.first.attach(name, a.evidence(t, x))
	}
	return a, base
}

// settle starts the node, has everything come in while there is no policy, and then puts it in force.
func (a *assault) settle(t *testing.T, base *carrier, before func()) {
	t.Helper()
	a.Up(t, "--images", base.dir)
	a.kubectl = a.Kubectl(t)
	// The kubelet looks at the file when it pulls first, and then every five minutes.
	must(t, os.WriteFile(a.credentials(), []byte(`{"auths":{"`+registryHost+`":{"username":"site","password":"sesame"}}}`), 0o600))
	// While there is no policy all of them come in.
	a.Run(t, "image", "import", a.first.dir)
	service := runtimeOf(t, a.Node)
	for _, name := range a.first.names() {
		cluster.Eventually(t, patience, "the node to have "+name, func() error {
			got, err := service.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
			if err == nil && got.Image == nil {
				err = errors.New("it has not")
			}
			return err
		})
	}
	before()
	a.repo.Write(t, "trust/images.yaml", a.rules(t, a.first.digests[local+"/key/"+deniedDigest+":1"]))
	a.repo.Write(t, "trust/trusted_root.json", string(a.sigstore.TrustedRoot(t, false)))
	s := &site{Node: a.Node, repo: a.repo}
	s.inForce(t, s.push(t, "only what was signed"), true)
}

// TestAttackTable has each image that must not run knock at each door that it can reach, while its twin is let in.
func TestAttackTable(t *testing.T) {
	a, base := newAssault(t)
	early := map[string]client.Container{}
	a.settle(t, base, func() { early = a.made(t) })
	a.shop = a.open(t)

	t.Run("admission", a.admission)
	t.Run("name", a.name)
	t.Run("socket", a.socket)
	t.Run("start", func(t *testing.T) { a.start(t, early) })
	t.Run("volume", a.volume)
	t.Run("past admission", a.pastAdmission)
	t.Run("import", a.imports)
	t.Run("stripped", a.stripped)
	t.Run("pull", a.pulls)
	t.Run("pull behind a password", a.password)
	t.Run("tag moved", a.moved)
	t.Run("content", a.content)
	t.Run("twins", a.twinsRun)
}

// credentials is the file with those of the node.
func (a *assault) credentials() string { return filepath.Join(a.State, "kubelet", "config.json") }

func (a *assault) evidence(t *testing.T, x attack) attached {
	t.Helper()
	digest := a.first.digests[x.at(local)+":1"]
	if x.attach == nil {
		return a.twin(t, x.policy, digest)
	}
	return x.attach(t, a.signers, digest, "sha256:"+strings.Repeat("2", 64))
}

// attach puts what is attached to an image into the layout.
func (c *carrier) attach(name string, what attached) {
	c.t.Helper()
	repository, digest := name[:strings.LastIndex(name, ":")], c.digests[name]
	if what.payload != nil {
		signed, err := mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(what.payload, signature), MediaType: signature, Annotations: what.annotations})
		must(c.t, err)
		must(c.t, c.path.AppendImage(signed, layout.WithAnnotations(map[string]string{refName: repository + ":" + strings.Replace(digest, ":", "-", 1) + ".sig"})))
	}
	if what.bundle == nil {
		return
	}
	bundle, err := mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(what.bundle, cosigntest.BundleType), MediaType: cosigntest.BundleType})
	must(c.t, err)
	hash, err := v1.NewHash(digest)
	must(c.t, err)
	image, err := c.path.Image(hash)
	must(c.t, err)
	size, err := image.Size()
	must(c.t, err)
	referrer, ok := mutate.Subject(bundle, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hash, Size: size}).(v1.Image)
	if !ok {
		c.t.Fatal("a referrer is no image")
	}
	must(c.t, c.path.AppendImage(referrer))
}

// each runs a test for each attack.
func each(t *testing.T, test func(t *testing.T, x attack)) {
	t.Helper()
	for _, x := range attackTable {
		t.Run(x.name, func(t *testing.T) { test(t, x) })
	}
}

// refuses checks that something was refused for its own reason.
func refuses(t *testing.T, err error, x attack) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), x.denied) {
		t.Errorf("%v, want %q", err, x.denied)
	}
}

func (a *assault) admission(t *testing.T) {
	each(t, func(t *testing.T, x attack) {
		refuses(t, errors.New(a.kubectl.ApplyRefused(t, pod("attack", x.at(local)+":1"))), x)
	})
}

// name gives an image another name by which it would be about the same policy.
func (a *assault) name(t *testing.T) {
	c, ctx := containerd(t, a.Node, "k8s.io")
	rename := func(x attack) error {
		record, err := c.ImageService().Get(ctx, x.at(local)+":1")
		must(t, err)
		record.Name = x.at(local) + ":renamed"
		_, err = c.ImageService().Create(ctx, record)
		return err
	}
	each(t, func(t *testing.T, x attack) { refuses(t, rename(x), x) })
	for _, x := range twins {
		must(t, rename(x))
		must(t, c.ImageService().Delete(ctx, x.at(local)+":renamed"))
	}
	t.Run("the digest of another", func(t *testing.T) {
		record, err := c.ImageService().Get(ctx, twins[0].at(local)+":1")
		must(t, err)
		record.Name = twins[0].at(local) + "@sha256:" + strings.Repeat("2", 64)
		if _, err := c.ImageService().Create(ctx, record); err == nil || !strings.Contains(err.Error(), "the digest of something else") {
			t.Errorf("%v", err)
		}
	})
}

// socket makes a container as root on the machine could.
func (a *assault) socket(t *testing.T) {
	c, ctx := containerd(t, a.Node, "k8s.io")
	snapshotter := snapshotterOf(ctx, t, c)
	attempt := func(x attack) error {
		image, err := c.GetImage(ctx, x.at(local)+":1")
		must(t, err)
		made, err := c.NewContainer(ctx, "attack", client.WithSnapshotter(snapshotter), client.WithImage(image), client.WithNewSnapshot("attack", image),
			client.WithNewSpec(oci.WithProcessArgs("/toolbox", "serve")))
		if err == nil {
			must(t, made.Delete(ctx, client.WithSnapshotCleanup))
		}
		_ = c.SnapshotService(snapshotter).Remove(ctx, "attack") // left by a refused one
		return err
	}
	each(t, func(t *testing.T, x attack) { refuses(t, attempt(x), x) })
	for _, x := range twins {
		must(t, attempt(x))
	}
}

// made makes a container of each image, which is not started.
func (a *assault) made(t *testing.T) map[string]client.Container {
	t.Helper()
	c, ctx := containerd(t, a.Node, "k8s.io")
	snapshotter := snapshotterOf(ctx, t, c)
	out := map[string]client.Container{}
	for _, x := range attackTable {
		image, err := c.GetImage(ctx, x.at(local)+":1")
		must(t, err)
		id := "early-" + x.policy + "-" + x.name
		out[x.at(local)], err = c.NewContainer(ctx, id, client.WithSnapshotter(snapshotter), client.WithImage(image), client.WithNewSnapshot(id, image),
			client.WithNewSpec(oci.WithProcessArgs("/toolbox", "serve")))
		must(t, err)
	}
	return out
}

// start starts containers that were made before there was a policy. Their twins are all that runs on the node.
func (a *assault) start(t *testing.T, early map[string]client.Container) {
	_, ctx := containerd(t, a.Node, "k8s.io")
	each(t, func(t *testing.T, x attack) {
		made := early[x.at(local)]
		_, err := made.NewTask(ctx, nullIO)
		refuses(t, err, x)
		must(t, made.Delete(ctx, client.WithSnapshotCleanup))
	})
}

// volume asks for the files of an image, as for a volume.
func (a *assault) volume(t *testing.T) {
	c, ctx := containerd(t, a.Node, "k8s.io")
	snapshotter := snapshotterOf(ctx, t, c)
	attempt := func(x attack) error {
		image, err := c.GetImage(ctx, x.at(local)+":1")
		must(t, err)
		diffs, err := image.RootFS(ctx)
		must(t, err)
		_, err = c.SnapshotService(snapshotter).View(ctx, "attack", identity.ChainID(diffs).String())
		if err == nil {
			must(t, c.SnapshotService(snapshotter).Remove(ctx, "attack"))
		}
		return err
	}
	each(t, func(t *testing.T, x attack) { refuses(t, attempt(x), x) })
	for _, x := range twins {
		must(t, attempt(x))
	}
}

// pastAdmission makes containers as the kubelet makes those of a static pod: the API server is not asked. The sandbox is
// that of a pod, because the kubelet ends what belongs to none.
func (a *assault) pastAdmission(t *testing.T) {
	a.kubectl.Apply(t, pod("host", twins[0].at(local)+":1"))
	ready(t, a.kubectl, "host")
	socket, err := a.Path("/run/bothy/containerd.sock")
	must(t, err)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	runtime := cri.NewRuntimeServiceClient(conn)
	list, err := runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.name": "host"}}})
	must(t, err)
	if len(list.Items) != 1 {
		t.Fatalf("the pod has %d sandboxes", len(list.Items))
	}
	sandbox := list.Items[0].Id
	config := &cri.PodSandboxConfig{Metadata: list.Items[0].Metadata, LogDirectory: t.TempDir(), Linux: &cri.LinuxPodSandboxConfig{}}
	attempt := func(x attack) error {
		_, err := runtime.CreateContainer(t.Context(), &cri.CreateContainerRequest{
			PodSandboxId: sandbox, SandboxConfig: config,
			Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: x.policy + "-" + x.name}, Image: &cri.ImageSpec{Image: x.at(local) + ":1"}, LogPath: x.policy + x.name, Linux: &cri.LinuxContainerConfig{}},
		})
		return err
	}
	each(t, func(t *testing.T, x attack) { refuses(t, attempt(x), x) })
	for _, x := range twins {
		must(t, attempt(x))
	}
}

// imports carries all of them once more, under other tags.
func (a *assault) imports(t *testing.T) {
	second := newCarrier(t, filepath.Join(t.TempDir(), "second"))
	for _, x := range append(append([]attack{}, attackTable...), twins...) {
		name := x.at(local) + ":2"
		second.add(name, a.images[x.policy+"/"+x.name])
		second.attach(name, a.evidence(t, x))
	}
	if r := a.Try(t, "image", "import", second.dir); r.Code == 0 || !strings.Contains(r.Stderr, "image policy denies") {
		t.Errorf("the command does not say that something was left out: %+v", r)
	}
	service := runtimeOf(t, a.Node)
	here := func(x attack) bool {
		got, err := service.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: x.at(local) + ":2"}})
		must(t, err)
		return got.Image != nil
	}
	for _, x := range twins {
		cluster.Eventually(t, patience, "the twin to be imported", func() error {
			if !here(x) {
				return errors.New("it is not there")
			}
			return nil
		})
	}
	each(t, func(t *testing.T, x attack) {
		cluster.Eventually(t, patience, "the importer to say what it left out", func() error {
			imports := a.Status(t).Imports
			if imports == nil || !strings.Contains(imports.Denied[x.at(local)+":2"], x.denied) {
				return fmt.Errorf("it says %+v", imports)
			}
			return nil
		})
		if here(x) {
			t.Error("it came in")
		}
	})
}

// add adds an image as it is.
func (c *carrier) add(name string, image v1.Image) {
	c.t.Helper()
	digest, err := image.Digest()
	must(c.t, err)
	c.digests[name] = digest.String()
	must(c.t, c.path.AppendImage(image, layout.WithAnnotations(map[string]string{refName: name})))
}

// stripped takes the signature out of a layout on its way, and then does not.
func (a *assault) stripped(t *testing.T) {
	c := newCarrier(t, filepath.Join(t.TempDir(), "stripped"))
	const name = local + "/key/stripped:1"
	c.vary(name, a.plain)
	file := filepath.Join(c.dir, "index.json")
	c.attach(name, a.byKey(t, a.key, c.digests[name]))
	whole, err := os.ReadFile(file)
	must(t, err)
	var index v1.IndexManifest
	must(t, json.Unmarshal(whole, &index))
	index.Manifests = index.Manifests[:1]
	text, err := json.Marshal(index)
	must(t, err)
	must(t, os.WriteFile(file, text, 0o600))
	if r := a.Try(t, "image", "import", c.dir); r.Code == 0 || !strings.Contains(r.Stderr, "has no signature") {
		t.Errorf("the command does not say that the image was left out: %+v", r)
	}
	cluster.Eventually(t, patience, "the stripped image to be left out", func() error {
		imports := a.Status(t).Imports
		if imports == nil || !strings.Contains(imports.Denied[name], "has no signature") {
			return fmt.Errorf("%+v", imports)
		}
		return nil
	})
	must(t, os.WriteFile(file, whole, 0o600))
	a.Try(t, "image", "import", c.dir) // which also speaks of what is still left out
	cluster.Eventually(t, patience, "the whole image to come in", func() error {
		got, err := runtimeOf(t, a.Node).ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
		if err == nil && got.Image == nil {
			err = errors.New("it has not")
		}
		return err
	})
}

// shop is a registry in the node's network, which the test fills from without.
type shop struct {
	t       *testing.T
	outside string

	mu sync.Mutex
	// swapped are answers to be given in place of a manifest or blob, by digest.
	swapped map[string][]byte
	// password is demanded within the node's network, unless it is "".
	password string
}

func (a *assault) open(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, swapped: map[string][]byte{}}
	back := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true))
	outside := httptest.NewServer(back)
	t.Cleanup(outside.Close)
	s.outside = strings.TrimPrefix(outside.URL, "http://")
	ns, err := a.Namespace()
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	l, err := ns.Listen("tcp", registryHost)
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		instead, found := s.swapped[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
		wanted := s.password
		s.mu.Unlock()
		if _, password, _ := r.BasicAuth(); wanted != "" && password != wanted {
			w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if found && r.Method == http.MethodGet {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			_, _ = w.Write(instead)
			return
		}
		back.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }() // it ends with the listener
	t.Cleanup(func() { must(t, server.Close()) })
	return s
}

// offer puts an image, with what is attached to it, into the registry, and returns how the node calls it.
func (s *shop) offer(path, tag string, image v1.Image, what attached) string {
	s.t.Helper()
	r, err := name.NewRepository(s.outside+"/"+path, name.Insecure)
	must(s.t, err)
	digest := cosigntest.Push(s.t, r.Tag(tag), image)
	if what.payload != nil {
		cosigntest.AttachLegacy(s.t, r, digest, what.payload, what.annotations)
	}
	if what.bundle != nil {
		cosigntest.AttachBundle(s.t, r, digest, what.bundle)
	}
	return registryHost + "/" + path + ":" + tag
}

func (a *assault) pulls(t *testing.T) {
	each(t, func(t *testing.T, x attack) {
		image := a.shop.offer(x.policy+"/"+x.name, "1", a.images[x.policy+"/"+x.name], a.evidence(t, x))
		// What came with the layouts is about the same digest: nothing better is in the registry.
		refuses(t, pull(t, a.Node, image), x)
	})
	for _, x := range twins {
		fresh := vary(t, a.plain)
		digest, err := fresh.Digest()
		must(t, err)
		image := a.shop.offer(x.policy+"/pulled", "1", fresh, a.twin(t, x.policy, digest.String()))
		a.kubectl.Apply(t, pod("pulled-"+x.policy, image))
		ready(t, a.kubectl, "pulled-"+x.policy)
	}
}

// password has the registry demand one, for signatures as for images.
func (a *assault) password(t *testing.T) {
	fresh := vary(t, a.plain)
	digest, err := fresh.Digest()
	must(t, err)
	image := a.shop.offer("ci/secret", "1", fresh, a.twin(t, "ci", digest.String()))
	secret := func(password string) {
		a.shop.mu.Lock()
		defer a.shop.mu.Unlock()
		a.shop.password = password
	}
	secret("sesame")
	defer secret("")
	if err := pull(t, a.Node, image); err == nil {
		t.Fatal("pulled without a password")
	}
	file := a.credentials()
	must(t, os.Rename(file, file+".away"))
	// The pod has credentials for the image, but the node has none for what is attached to it.
	withAuth := &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}, Auth: &cri.AuthConfig{Username: "site", Password: "sesame"}}
	if _, err := runtimeOf(t, a.Node).PullImage(t.Context(), withAuth); err == nil || !strings.Contains(err.Error(), "401 Unauthorized") || !strings.Contains(err.Error(), "give credentials") {
		t.Errorf("%v", err)
	}
	must(t, os.Rename(file+".away", file))
	a.kubectl.Apply(t, pod("secret", image)) // which brings no credentials of its own
	ready(t, a.kubectl, "secret")
}

// moved has a tag mean another image after it was signed, and pulled.
func (a *assault) moved(t *testing.T) {
	good, evil := vary(t, a.plain), vary(t, a.plain)
	digest, err := good.Digest()
	must(t, err)
	image := a.shop.offer("key/moved", "1", good, a.byKey(t, a.key, digest.String()))
	must(t, pull(t, a.Node, image))
	a.shop.offer("key/moved", "1", evil, attached{})
	refuses(t, pull(t, a.Node, image), attackTable[0])
	must(t, pull(t, a.Node, registryHost+"/key/moved@"+digest.String()))

	// Neither does whoever talks to containerd move it, nor a layout.
	c, ctx := containerd(t, a.Node, "k8s.io")
	record, err := c.ImageService().Get(ctx, image)
	must(t, err)
	unsigned, err := c.ImageService().Get(ctx, attackTable[0].at(local)+":1")
	must(t, err)
	moved := record
	moved.Target = unsigned.Target
	_, err = c.ImageService().Update(ctx, moved, "target")
	refuses(t, err, attackTable[0])
	carried := newCarrier(t, filepath.Join(t.TempDir(), "moved"))
	carried.add(image, evil)
	if r := a.Try(t, "image", "import", carried.dir); r.Code == 0 || !strings.Contains(r.Stderr, image) || !strings.Contains(r.Stderr, attackTable[0].denied) {
		t.Errorf("a layout moves the tag: %+v", r)
	}
	if now, err := c.ImageService().Get(ctx, image); err != nil || now.Target.Digest != record.Target.Digest {
		t.Errorf("the tag was moved to %s, %v", now.Target.Digest, err)
	}
}

// content are images that somebody trusted signed, and that are not what they should be.
func (a *assault) content(t *testing.T) {
	signed := func(path string, image interface{ Digest() (v1.Hash, error) }, push func(name.Repository)) string {
		t.Helper()
		r, err := name.NewRepository(a.shop.outside+"/key/"+path, name.Insecure)
		must(t, err)
		push(r)
		digest, err := image.Digest()
		must(t, err)
		s := a.byKey(t, a.key, digest.String())
		cosigntest.AttachLegacy(t, r, digest.String(), s.payload, s.annotations)
		return registryHost + "/key/" + path + ":1"
	}
	made := map[string]v1.Image{}
	plain := func(path string, image v1.Image) string {
		at := signed(path, image, func(r name.Repository) { cosigntest.Push(t, r.Tag("1"), image) })
		made[at] = image
		return at
	}
	swap := func(digest v1.Hash, with []byte) {
		a.shop.mu.Lock()
		defer a.shop.mu.Unlock()
		a.shop.swapped[digest.String()] = with
	}
	harmful := func(write func(*tar.Writer)) v1.Image {
		t.Helper()
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		w := tar.NewWriter(z)
		write(w)
		must(t, errors.Join(w.Close(), z.Close()))
		image, err := mutate.AppendLayers(a.plain, static.NewLayer(packed.Bytes(), types.OCILayer))
		must(t, err)
		return image
	}
	for what, c := range map[string]struct {
		image func(t *testing.T) string
		want  string
		// unpacked is what whoever unpacks it through containerd's socket is told; "" if it does not get there.
		unpacked string
	}{
		"corrupted blob": {func(t *testing.T) string {
			image := vary(t, a.plain)
			layers, err := image.Layers()
			must(t, err)
			layer := layers[len(layers)-1]
			digest, err := layer.Digest()
			must(t, err)
			r, err := layer.Compressed()
			must(t, err)
			data, err := io.ReadAll(r)
			must(t, err)
			data[len(data)/2] ^= 1
			swap(digest, data)
			return plain("corrupted", image)
		}, "unexpected commit digest", ""},
		"platform manifest swapped in a signed index": {func(t *testing.T) string {
			good, evil := vary(t, a.plain), vary(t, a.plain)
			config, err := good.ConfigFile()
			must(t, err)
			index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: good, Descriptor: v1.Descriptor{Platform: config.Platform()}})
			name := signed("swapped", index, func(r name.Repository) {
				must(t, remote.WriteIndex(r.Tag("1"), index))
				cosigntest.Push(t, r.Tag("evil"), evil)
			})
			digest, err := good.Digest()
			must(t, err)
			manifest, err := evil.RawManifest()
			must(t, err)
			swap(digest, manifest)
			return name
		}, "failed precondition", ""},
		"decompression bomb": {func(t *testing.T) string {
			return plain("bomb", harmful(func(w *tar.Writer) {
				const size = 640 << 20
				must(t, w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}))
				zeros := make([]byte, 1<<20)
				for range size / len(zeros) {
					_, err := w.Write(zeros)
					must(t, err)
				}
			}))
		}, "made to fill the disk", "made to fill the disk"},
		"layer path escaping": {func(t *testing.T) string {
			return plain("escape", harmful(func(w *tar.Writer) {
				must(t, w.WriteHeader(&tar.Header{Name: "../../../../etc/bothy-was-here", Mode: 0o644, Size: 1}))
				_, err := w.Write([]byte("x"))
				must(t, err)
			}))
		}, "leads out of the image", "leads out of the image"},
	} {
		t.Run(what, func(t *testing.T) {
			image := c.image(t)
			if err := pull(t, a.Node, image); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			got, err := runtimeOf(t, a.Node).ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
			if err != nil || got.Image != nil {
				t.Errorf("it has a name: %v, %v", got, err)
			}
			if c.unpacked == "" {
				return
			}
			if err := a.unpack(t, image, made[image]); err == nil || !strings.Contains(err.Error(), c.unpacked) {
				t.Errorf("through the socket: %v, want %q", err, c.unpacked)
			}
		})
	}
	if _, err := os.Stat("/etc/bothy-was-here"); err == nil {
		t.Error("a layer wrote outside of its image")
	}
	// The twin of all of them: an index, signed, and as it was signed.
	image := vary(t, a.plain)
	config, err := image.ConfigFile()
	must(t, err)
	must(t, a.unpack(t, plain("harmless", a.plain), a.plain))
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: config.Platform()}})
	must(t, pull(t, a.Node, signed("index", index, func(r name.Repository) { must(t, remote.WriteIndex(r.Tag("1"), index)) })))
}

// unpack brings an image in through containerd's socket, as a client of it that has the content and the signatures can, and
// unpacks it.
func (a *assault) unpack(t *testing.T, at string, image v1.Image) error {
	t.Helper()
	c, ctx := containerd(t, a.Node, "k8s.io")
	ctx, release, err := c.WithLease(ctx)
	must(t, err)
	defer func() { must(t, release(ctx)) }()
	carried := newCarrier(t, filepath.Join(t.TempDir(), "carried"))
	carried.add(at, image)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	must(t, errors.Join(w.AddFS(os.DirFS(carried.dir)), w.Close()))
	list, err := c.Import(ctx, &archive, client.WithImageRefTranslator(func(string) string { return at }))
	must(t, err)
	defer func() { must(t, c.ImageService().Delete(ctx, at)) }()
	if len(list) != 1 || list[0].Name != at {
		t.Fatalf("imported as %+v", list)
	}
	return client.NewImage(c, list[0]).Unpack(ctx, snapshotterOf(ctx, t, c))
}

// twinsRun has the twins run, from what was carried.
func (a *assault) twinsRun(t *testing.T) {
	for _, x := range twins {
		a.kubectl.Apply(t, pod("twin-"+x.policy, x.at(local)+":1"))
		ready(t, a.kubectl, "twin-"+x.policy)
	}
}
