package oci

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// Media types of flux push artifact.
const (
	contentType = "application/vnd.cncf.flux.content.v1.tar+gzip"
	chartType   = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// testRegistry counts what is asked for and can be made to fail.
type testRegistry struct {
	t          *testing.T
	server     *httptest.Server
	repository name.Repository

	mu       sync.Mutex
	requests []string
	answer   func(http.ResponseWriter, *http.Request) bool // true: answered
}

func newTestRegistry(t *testing.T, start func(http.Handler) *httptest.Server) *testRegistry {
	t.Helper()
	r := &testRegistry{t: t}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	r.server = start(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, q.Method+" "+q.URL.Path)
		answer := r.answer
		r.mu.Unlock()
		if answer == nil || !answer(w, q) {
			inner.ServeHTTP(w, q)
		}
	}))
	t.Cleanup(r.server.Close)
	address, err := url.Parse(r.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if r.repository, err = name.NewRepository(address.Host + "/team/app"); err != nil {
		t.Fatal(err)
	}
	return r
}

// asked returns the requests since the last call.
func (r *testRegistry) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.requests
	r.requests = nil
	return out
}

func (r *testRegistry) answers(with func(http.ResponseWriter, *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = with
}

// push pushes layers as flux push artifact does, and returns the digest.
func (r *testRegistry) push(tag string, layers ...mutate.Addendum) string {
	r.t.Helper()
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image, err := mutate.Append(image, layers...)
	if err != nil {
		r.t.Fatal(err)
	}
	pushed := mutate.Annotations(image, map[string]string{originSource: "https://example.com/repo", originRevision: "main@sha1:abc"}).(v1.Image)
	if err := remote.Write(r.repository.Tag(tag), pushed, remote.WithTransport(r.server.Client().Transport)); err != nil {
		r.t.Fatal(err)
	}
	digest, err := pushed.Digest()
	if err != nil {
		r.t.Fatal(err)
	}
	return digest.String()
}

func layerOf(data []byte, mediaType types.MediaType) mutate.Addendum {
	return mutate.Addendum{Layer: static.NewLayer(data, mediaType), MediaType: mediaType}
}

// world is a controller with an API server of its own.
type world struct {
	t      *testing.T
	dir    string
	client client.Client
	store  *source.Store
	events []string
	r      *reconciler
	key    client.ObjectKey
}

// Event implements events.Recorder.
func (w *world) Event(_ client.Object, severity, reason, message string, _ map[string]string) {
	w.events = append(w.events, severity+" "+reason+" "+message)
}

func newWorld(t *testing.T, url string, change func(*sourcev1.OCIRepositorySpec), objects ...client.Object) *world {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, sourcev1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	o := &sourcev1.OCIRepository{ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: "apps", UID: "u1", Generation: 1}}
	o.Spec.URL, o.Spec.Interval = "oci://"+url, metav1.Duration{Duration: time.Minute}
	change(&o.Spec)
	w := &world{t: t, dir: t.TempDir(), key: client.ObjectKeyFromObject(o)}
	w.client = fake.NewClientBuilder().WithScheme(s).WithObjects(append(objects, o)...).WithStatusSubresource(o).Build()
	w.restart()
	return w
}

// restart makes a new process that knows nothing but the disk.
func (w *world) restart() {
	w.store = source.NewStore()
	w.r = newReconciler(w.client, env.Env{Store: w.store, StateDir: w.dir, Events: w, Log: slog.New(slog.DiscardHandler), Version: "test"})
}

// reconcile reconciles as if the interval were over.
func (w *world) reconcile() (*sourcev1.OCIRepository, *source.Artifact) {
	w.t.Helper()
	w.r.mu.Lock()
	if j := w.r.jobs[w.key]; j != nil {
		j.looked = time.Time{}
	}
	w.r.mu.Unlock()
	result, err := w.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: w.key})
	if err != nil {
		w.t.Fatal(err)
	}
	o := w.object()
	if !o.Spec.Suspend && result.RequeueAfter <= 0 {
		w.t.Errorf("nobody looks again: %+v", result)
	}
	return o, w.store.Get(keyOf(w.key))
}

func (w *world) object() *sourcev1.OCIRepository {
	w.t.Helper()
	o := &sourcev1.OCIRepository{}
	if err := w.client.Get(context.Background(), w.key, o); err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) change(change func(*sourcev1.OCIRepository)) {
	w.t.Helper()
	o := w.object()
	change(o)
	o.Generation++
	if err := w.client.Update(context.Background(), o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) expectReady(o *sourcev1.OCIRepository, a *source.Artifact, revision string) {
	w.t.Helper()
	if !conditions.IsReady(o) || a == nil || a.Revision != revision || o.Status.Artifact == nil || o.Status.Artifact.Revision != revision {
		w.t.Fatalf("not ready with %s: artifact %+v, conditions %+v", revision, a, o.Status.Conditions)
	}
}

func (w *world) expectProblem(o *sourcev1.OCIRepository, condition, reason, message string) {
	w.t.Helper()
	ready := conditions.Get(o, meta.ReadyCondition)
	if ready == nil || ready.Status != metav1.ConditionFalse || ready.Reason != reason || !strings.Contains(ready.Message, message) || !conditions.Has(o, condition) {
		w.t.Fatalf("want %s with reason %s and %q, have %+v", condition, reason, message, o.Status.Conditions)
	}
}

func nothing(*sourcev1.OCIRepositorySpec) {}

func manifests(t *testing.T, text string) mutate.Addendum {
	return layerOf(archive(t, entry{name: "a.yaml", content: text}, entry{name: "logo.png", content: "x"}, entry{name: "b/c.yaml", content: "c"}), contentType)
}

func content(t *testing.T, a *source.Artifact, name string) string {
	t.Helper()
	data, err := fs.ReadFile(a.Files, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFollowsATag(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	first := r.push("latest", manifests(t, "one"))
	w := newWorld(t, r.repository.String(), nothing)
	o, a := w.reconcile()
	w.expectReady(o, a, "latest@"+first)
	if content(t, a, "a.yaml") != "one" || a.OriginRevision != "main@sha1:abc" || o.Status.Artifact.Metadata[originSource] == "" {
		t.Errorf("%+v", a)
	}
	if _, err := fs.Stat(a.Files, "logo.png"); err == nil {
		t.Error("a file that Flux leaves out is there")
	}
	if len(w.events) != 1 || !strings.Contains(w.events[0], "stored artifact with revision 'latest@"+first) || !strings.HasPrefix(w.events[0], eventv1.EventSeverityInfo) {
		t.Errorf("events %q", w.events)
	}

	// Nothing new: one look, nothing fetched, nothing written.
	version := o.ResourceVersion
	r.asked()
	o, again := w.reconcile()
	if got := r.asked(); len(got) != 2 || got[1] != "HEAD /v2/team/app/manifests/latest" {
		t.Errorf("asked %q", got)
	}
	if o.ResourceVersion != version || again != a {
		t.Error("something was written")
	}

	second := r.push("latest", manifests(t, "two"))
	o, a = w.reconcile()
	w.expectReady(o, a, "latest@"+second)
	if content(t, a, "a.yaml") != "two" {
		t.Error("old content")
	}

	// The registry is gone: the artifact stays.
	r.answers(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return true
	})
	o, kept := w.reconcile()
	w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.OCIPullFailedReason, "latest")
	if kept != a || o.Status.Artifact.Revision != "latest@"+second {
		t.Error("the artifact is gone")
	}
	r.answers(nil)
	o, a = w.reconcile()
	w.expectReady(o, a, "latest@"+second)
	if conditions.Has(o, sourcev1.FetchFailedCondition) {
		t.Error("FetchFailed stays")
	}
}

func TestReferences(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	digests := map[string]string{}
	for _, tag := range []string{"v1.0.0", "1.2.0", "1.3.0-rc.1", "2.0.0", "main", "1.2.5-debug"} {
		digests[tag] = r.push(tag, manifests(t, tag))
	}
	for name, c := range map[string]struct {
		ref  sourcev1.OCIRepositoryRef
		want string
	}{
		"tag":                {sourcev1.OCIRepositoryRef{Tag: "main"}, "main@" + digests["main"]},
		"range":              {sourcev1.OCIRepositoryRef{SemVer: "1.x", Tag: "main"}, "1.2.0@" + digests["1.2.0"]},
		"range with v":       {sourcev1.OCIRepositoryRef{SemVer: "~1.0"}, "v1.0.0@" + digests["v1.0.0"]},
		"pre-release":        {sourcev1.OCIRepositoryRef{SemVer: ">=1.0.0-0 <2.0.0"}, "1.3.0-rc.1@" + digests["1.3.0-rc.1"]},
		"range with filter":  {sourcev1.OCIRepositoryRef{SemVer: ">=1.0.0-0", SemverFilter: ".*-debug$"}, "1.2.5-debug@" + digests["1.2.5-debug"]},
		"digest before both": {sourcev1.OCIRepositoryRef{Digest: digests["main"], SemVer: "1.x", Tag: "main"}, digests["main"]},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, r.repository.String(), func(s *sourcev1.OCIRepositorySpec) { s.Reference = &c.ref })
			o, a := w.reconcile()
			w.expectReady(o, a, c.want)
		})
	}
	for message, ref := range map[string]sourcev1.OCIRepositoryRef{
		"no tag is a version in the range 9.x": {SemVer: "9.x"},
		"spec.ref.semver":                      {SemVer: "x y"},
		"spec.ref.digest":                      {Digest: "main"},
		"MANIFEST_UNKNOWN":                     {Tag: "gone"},
	} {
		w := newWorld(t, r.repository.String(), func(s *sourcev1.OCIRepositorySpec) { s.Reference = &ref })
		o, _ := w.reconcile()
		w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.OCIPullFailedReason, message)
	}
}

func TestLayers(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	chart := archive(t, entry{name: "app/Chart.yaml", content: "name: app"}, entry{name: "app/logo.png", content: "x"})
	r.push("latest", manifests(t, "first"), layerOf(chart, chartType), layerOf([]byte("plain text"), "text/plain"))
	selector := func(mediaType, operation string) func(*sourcev1.OCIRepositorySpec) {
		return func(s *sourcev1.OCIRepositorySpec) {
			s.LayerSelector = &sourcev1.OCILayerSelector{MediaType: mediaType, Operation: operation}
		}
	}
	w := newWorld(t, r.repository.String(), selector(chartType, "extract"))
	_, a := w.reconcile()
	if content(t, a, "app/Chart.yaml") != "name: app" {
		t.Error("not the chart")
	}
	w = newWorld(t, r.repository.String(), selector(chartType, "copy"))
	_, a = w.reconcile()
	if content(t, a, "app/logo.png") != "x" || a.Digest != digestOf(chart) {
		t.Errorf("not the layer as it is: %+v", a)
	}
	w = newWorld(t, r.repository.String(), selector("text/plain", "copy"))
	if _, a = w.reconcile(); content(t, a, "layer") != "plain text" {
		t.Error("not the text")
	}
	w = newWorld(t, r.repository.String(), selector("text/plain", ""))
	o, _ := w.reconcile()
	w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.OCILayerOperationFailedReason, "is not a tar archive")
	w = newWorld(t, r.repository.String(), selector("text/html", ""))
	o, _ = w.reconcile()
	w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.OCILayerOperationFailedReason, "no layer of type text/html; it has "+contentType)

	// A change of the object is followed though the revision is the same.
	w = newWorld(t, r.repository.String(), nothing)
	w.reconcile()
	w.change(func(o *sourcev1.OCIRepository) { o.Spec.Ignore = new("b/\n!*.png\n") })
	_, a = w.reconcile()
	if _, err := fs.Stat(a.Files, "b/c.yaml"); err == nil || content(t, a, "logo.png") != "x" {
		t.Error("the rules of the object do not count")
	}
}

func dockerConfig(host, user, password string) *corev1.Secret {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "login"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{"https://%s/v1/":{"auth":%q}, "other.example.com":{"auth":"eDp5"}}}`, host, auth)},
	}
}

func TestCredentials(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	digest := r.push("latest", manifests(t, "x"))
	r.answers(func(w http.ResponseWriter, q *http.Request) bool {
		if user, password, _ := q.BasicAuth(); user == "user" && password == "pass" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	secretRef := func(s *sourcev1.OCIRepositorySpec) { s.SecretRef = &meta.LocalObjectReference{Name: "login"} }
	host := r.repository.RegistryStr()

	w := newWorld(t, r.repository.String(), secretRef, dockerConfig(host, "user", "pass"))
	o, a := w.reconcile()
	w.expectReady(o, a, "latest@"+digest)

	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "puller"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "login"}}}
	w = newWorld(t, r.repository.String(), func(s *sourcev1.OCIRepositorySpec) { s.ServiceAccountName = "puller" }, account, dockerConfig(host+"/team", "user", "pass"))
	o, a = w.reconcile()
	w.expectReady(o, a, "latest@"+digest)

	for name, c := range map[string]struct {
		secret  *corev1.Secret
		message string
	}{
		"wrong password":      {dockerConfig(host, "user", "wrong-s3cret"), "401"},
		"of another registry": {dockerConfig("elsewhere.example.com", "user", "pass"), "401"},
		"no Secret":           {nil, "failed to get secret 'apps/login'"},
		"no configuration":    {&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "login"}}, "kubectl create secret docker-registry"},
		"broken":              {&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "login"}, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("wrong-s3cret")}}, "no Docker configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if c.secret != nil {
				objects = append(objects, c.secret)
			}
			w := newWorld(t, r.repository.String(), secretRef, objects...)
			o, _ := w.reconcile()
			w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.AuthenticationFailedReason, c.message)
			if strings.Contains(conditions.GetMessage(o, meta.ReadyCondition), "s3cret") {
				t.Error("the status tells a password")
			}
		})
	}
}

func TestTLS(t *testing.T) {
	r := newTestRegistry(t, httptest.NewTLSServer)
	// A name, because go-containerregistry talks http to loopback addresses.
	_, port, _ := strings.Cut(r.server.Listener.Addr().String(), ":")
	digest := r.push("latest", manifests(t, "x"))
	ca := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "ca"}, Data: map[string][]byte{
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw}),
	}}
	w := newWorld(t, "127.0.0.1:"+port+"/team/app", func(s *sourcev1.OCIRepositorySpec) { s.CertSecretRef = &meta.LocalObjectReference{Name: "ca"} }, ca)
	o, a := w.reconcile()
	w.expectReady(o, a, "latest@"+digest)

	w = newWorld(t, "127.0.0.1:"+port+"/team/app", nothing)
	o, _ = w.reconcile()
	w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.OCIPullFailedReason, "")
}

func TestProxy(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	digest := r.push("latest", manifests(t, "x"))
	var mu sync.Mutex
	var through []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodConnect { // for https, which insecure allows but does not demand
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		mu.Lock()
		through = append(through, q.URL.Host)
		mu.Unlock()
		answer := httptest.NewRecorder()
		inner := q.Clone(q.Context())
		inner.URL.Host, inner.URL.Scheme = "", ""
		r.server.Config.Handler.ServeHTTP(answer, inner)
		for key, values := range answer.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = answer.Body.WriteTo(w)
	}))
	t.Cleanup(proxy.Close)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "proxy"}, Data: map[string][]byte{"address": []byte(proxy.URL)}}
	w := newWorld(t, "registry.example.com/team/app", func(s *sourcev1.OCIRepositorySpec) {
		s.ProxySecretRef, s.Insecure = &meta.LocalObjectReference{Name: "proxy"}, true
	}, secret)
	o, a := w.reconcile()
	w.expectReady(o, a, "latest@"+digest)
	mu.Lock()
	defer mu.Unlock()
	if len(through) == 0 || through[0] != "registry.example.com" {
		t.Errorf("asked through the proxy: %q", through)
	}
}

func TestVerifies(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	key, stranger := cosigntest.NewKey(t), cosigntest.NewKey(t)
	sigstore := cosigntest.NewSigstore(t)
	secret := func(data map[string][]byte) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "trust"}, Data: data}
	}
	byKey := func(s *sourcev1.OCIRepositorySpec) {
		s.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "trust"}}
	}
	byIdentity := func(s *sourcev1.OCIRepositorySpec) {
		s.Verify = &sourcev1.OCIRepositoryVerification{
			Provider: "cosign", TrustedRootSecretRef: &meta.LocalObjectReference{Name: "trust"},
			MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{{Issuer: "^https://issuer.example.com$", Subject: "@example.com$"}},
		}
	}
	keys, root := secret(map[string][]byte{"cosign.pub": key.PEM(t)}), secret(map[string][]byte{trustedRootKey: sigstore.TrustedRoot(t, false)})

	digest := r.push("latest", manifests(t, "x"))
	w := newWorld(t, r.repository.String(), byKey, keys)
	r.asked()
	o, a := w.reconcile()
	w.expectProblem(o, sourcev1.SourceVerifiedCondition, sourcev1.VerificationError, "has no signature")
	if a != nil || conditions.IsTrue(o, sourcev1.SourceVerifiedCondition) {
		t.Error("an artifact without a signature was delivered")
	}
	for _, q := range r.asked() {
		if strings.Contains(q, "/blobs/") {
			t.Errorf("content was fetched before it was believed: %s", q)
		}
	}

	payload := cosigntest.Payload(digest)
	cosigntest.AttachLegacy(t, r.repository, digest, payload, stranger.Annotations(t, payload))
	o, _ = w.reconcile()
	w.expectProblem(o, sourcev1.SourceVerifiedCondition, sourcev1.VerificationError, "not by any of the keys cosign.pub")

	cosigntest.AttachLegacy(t, r.repository, digest, payload, key.Annotations(t, payload))
	o, a = w.reconcile()
	w.expectReady(o, a, "latest@"+digest)
	if !conditions.IsTrue(o, sourcev1.SourceVerifiedCondition) || !strings.Contains(conditions.GetMessage(o, sourcev1.SourceVerifiedCondition), "by cosign.pub") {
		t.Errorf("%+v", o.Status.Conditions)
	}

	// A key that replaces the one in the Secret is believed, and no other.
	replaced := secret(map[string][]byte{"cosign.pub": cosigntest.NewKey(t).PEM(t)})
	if err := w.client.Update(context.Background(), replaced); err != nil {
		t.Fatal(err)
	}
	o, _ = w.reconcile()
	w.expectProblem(o, sourcev1.SourceVerifiedCondition, sourcev1.VerificationError, "not by any of the keys")

	w = newWorld(t, r.repository.String(), byIdentity, root)
	o, _ = w.reconcile()
	w.expectProblem(o, sourcev1.SourceVerifiedCondition, sourcev1.VerificationError, "it was made with a key")
	cosigntest.AttachBundle(t, r.repository, digest, sigstore.Bundle(t, "ci@example.com", "https://issuer.example.com", digest, cosigntest.SignPredicate))
	o, a = w.reconcile()
	w.expectReady(o, a, "latest@"+digest)
	if got := conditions.GetMessage(o, sourcev1.SourceVerifiedCondition); !strings.Contains(got, "by ci@example.com by https://issuer.example.com") {
		t.Error(got)
	}

	for message, c := range map[string]struct {
		spec   func(*sourcev1.OCIRepositorySpec)
		secret *corev1.Secret
	}{
		"there is no public key":   {byKey, secret(nil)},
		"has no trusted_root.json": {byIdentity, secret(nil)},
		"no root is fetched from": {func(s *sourcev1.OCIRepositorySpec) {
			s.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign"}
		}, keys},
		"provider notation is not supported": {func(s *sourcev1.OCIRepositorySpec) { byKey(s); s.Verify.Provider = "notation" }, keys},
		"would trust everybody":              {func(s *sourcev1.OCIRepositorySpec) { byIdentity(s); s.Verify.MatchOIDCIdentity = nil }, root},
	} {
		w := newWorld(t, r.repository.String(), c.spec, c.secret)
		o, a := w.reconcile()
		w.expectProblem(o, sourcev1.SourceVerifiedCondition, sourcev1.VerificationError, message)
		if a != nil {
			t.Errorf("%s: delivered", message)
		}
	}
}

func TestRestartWithoutNetwork(t *testing.T) {
	key := cosigntest.NewKey(t)
	trust := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "trust"}, Data: map[string][]byte{"cosign.pub": key.PEM(t)}}
	for name, c := range map[string]struct {
		spoil func(*testing.T, *world, string)
		there bool
	}{
		"as it was": {func(*testing.T, *world, string) {}, true},
		"content damaged": {func(t *testing.T, _ *world, dir string) {
			blobs, _ := filepath.Glob(filepath.Join(dir, "sha256-*"))
			if len(blobs) != 1 {
				t.Fatalf("saved %q", blobs)
			}
			if err := os.WriteFile(blobs[0], []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"record gone": {func(t *testing.T, _ *world, dir string) {
			if err := os.Remove(filepath.Join(dir, recordName)); err != nil {
				t.Fatal(err)
			}
		}, false},
		"another key is trusted": {func(t *testing.T, w *world, _ string) {
			other := trust.DeepCopy()
			other.Data["cosign.pub"] = cosigntest.NewKey(t).PEM(t)
			if err := w.client.Update(context.Background(), other); err != nil {
				t.Fatal(err)
			}
		}, false},
		"another layer is wanted": {func(_ *testing.T, w *world, _ string) {
			w.change(func(o *sourcev1.OCIRepository) {
				o.Spec.LayerSelector = &sourcev1.OCILayerSelector{MediaType: chartType}
			})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t, httptest.NewServer)
			digest := r.push("latest", manifests(t, "x"))
			payload := cosigntest.Payload(digest)
			cosigntest.AttachLegacy(t, r.repository, digest, payload, key.Annotations(t, payload))
			w := newWorld(t, r.repository.String(), func(s *sourcev1.OCIRepositorySpec) {
				s.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "trust"}}
			}, trust.DeepCopy())
			o, a := w.reconcile()
			w.expectReady(o, a, "latest@"+digest)
			r.server.Close()
			c.spoil(t, w, filepath.Join(w.dir, "sources", "oci", "apps-app-u1"))
			w.restart()
			o, a = w.reconcile()
			if (a != nil) != c.there {
				t.Fatalf("artifact %+v", a)
			}
			w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.OCIPullFailedReason, "")
			if c.there && (content(t, a, "a.yaml") != "x" || a.Revision != "latest@"+digest || !conditions.IsTrue(o, sourcev1.SourceVerifiedCondition)) {
				t.Errorf("%+v", a)
			}
		})
	}
}

// TestLyingRegistry serves content that does not have the digest that names it.
func TestLyingRegistry(t *testing.T) {
	for name, lie := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"layer": func(w http.ResponseWriter, q *http.Request) bool {
			if strings.Contains(q.URL.Path, "/blobs/") {
				_, _ = w.Write(archive(t, entry{name: "a.yaml", content: "evil"}))
				return true
			}
			return false
		},
		"manifest": func(w http.ResponseWriter, q *http.Request) bool {
			if strings.Contains(q.URL.Path, "/manifests/sha256:") {
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				_, _ = w.Write([]byte(`{"schemaVersion":2,"layers":[]}`))
				return true
			}
			return false
		},
		"endless": func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, "/blobs/") {
				return false
			}
			chunk := bytes.Repeat([]byte("x"), 1<<20)
			for {
				if _, err := w.Write(chunk); err != nil {
					return true
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t, httptest.NewServer)
			r.push("latest", manifests(t, "x"))
			r.answers(lie)
			w := newWorld(t, r.repository.String(), nothing)
			o, a := w.reconcile()
			w.expectProblem(o, sourcev1.FetchFailedCondition, sourcev1.OCIPullFailedReason, "")
			if a != nil {
				t.Error("delivered")
			}
		})
	}
}

func TestSuspendDeleteAndUnsupported(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	r.push("latest", manifests(t, "x"))
	w := newWorld(t, r.repository.String(), func(s *sourcev1.OCIRepositorySpec) { s.Suspend = true })
	r.asked()
	if _, a := w.reconcile(); a != nil || len(r.asked()) > 0 {
		t.Error("a suspended object was fetched")
	}
	w.change(func(o *sourcev1.OCIRepository) { o.Spec.Suspend = false; o.Finalizers = []string{finalizer} })
	o, a := w.reconcile()
	if a == nil || o.Status.ObservedGeneration != o.Generation {
		t.Errorf("%+v", o.Status)
	}
	if err := w.client.Delete(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := w.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: w.key}); err != nil {
		t.Fatal(err)
	}
	if w.store.Get(keyOf(w.key)) != nil {
		t.Error("the artifact outlives its object")
	}
	if left, _ := os.ReadDir(filepath.Join(w.dir, "sources", "oci")); len(left) > 0 {
		t.Errorf("left %v", left)
	}

	w = newWorld(t, r.repository.String(), func(s *sourcev1.OCIRepositorySpec) { s.Provider = "aws" })
	o, _ = w.reconcile()
	w.expectProblem(o, meta.StalledCondition, "Unsupported", "spec.provider aws is not supported")
	w = newWorld(t, r.repository.String()+":v1", nothing)
	o, _ = w.reconcile()
	w.expectProblem(o, meta.StalledCondition, sourcev1.URLInvalidReason, "tags and digests belong into spec.ref")
}

// TestAsksOnlyWhenDue: a restart of the queue or a change of the status is no
// reason to ask the registry.
func TestAsksOnlyWhenDue(t *testing.T) {
	r := newTestRegistry(t, httptest.NewServer)
	r.push("latest", manifests(t, "x"))
	w := newWorld(t, r.repository.String(), nothing)
	w.reconcile()
	r.asked()
	result, err := w.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: w.key})
	if err != nil || result.RequeueAfter <= 0 || len(r.asked()) > 0 {
		t.Errorf("%+v, %v", result, err)
	}
	w.change(func(o *sourcev1.OCIRepository) {
		o.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
		o.Generation--
	})
	if _, err := w.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: w.key}); err != nil {
		t.Fatal(err)
	}
	if len(r.asked()) == 0 || w.object().Status.LastHandledReconcileAt != "now" {
		t.Error("the request was not handled")
	}
}

func TestRemovesLeftovers(t *testing.T) {
	w := newWorld(t, "127.0.0.1:1/x", nothing)
	for _, dir := range []string{"apps-app-u1", "apps-gone-u2"} {
		if err := os.MkdirAll(filepath.Join(w.r.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.r.removeLeftovers(context.Background()); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(w.r.dir)
	if len(left) != 1 || left[0].Name() != "apps-app-u1" {
		t.Errorf("left %v", left)
	}
}
