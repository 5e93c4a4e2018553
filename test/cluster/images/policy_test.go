package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
	"github.com/bothy-os/bothy/test/cluster"
)

// site is a node whose repository gets an image policy.
type site struct {
	*cluster.Node
	repo    *cluster.Repo
	kubectl *cluster.Kubectl
	carrier *carrier
	policy  string
}

// images is the part of `bothy status -o json` about images.
type images struct {
	Images *struct {
		InForce bool
		Commit  string
		Error   string
		Denied  map[string]int
	}
}

func (s *site) images(t *testing.T) (*images, error) {
	t.Helper()
	st := &images{}
	return st, json.NewDecoder(bytes.NewBufferString(s.Run(t, "status", "-o", "json"))).Decode(st)
}

// inForce waits until the node goes by the policy of a commit.
func (s *site) inForce(t *testing.T, commit string, want bool) {
	t.Helper()
	cluster.Eventually(t, patience, fmt.Sprintf("the policy of commit %s to be in force: %t", commit, want), func() error {
		st, err := s.images(t)
		if err != nil || st.Images == nil {
			return fmt.Errorf("no status of images: %w", err)
		}
		if i := st.Images; i.Commit != commit || i.InForce != want {
			return fmt.Errorf("%+v", *i)
		}
		return nil
	})
}

// push pushes what is in the work tree, and does not wait for the node to look.
func (s *site) push(t *testing.T, message string) string {
	t.Helper()
	commit := s.repo.Push(t, message, cluster.Signed)
	s.Try(t, "reconcile")
	return commit
}

// TestImagePolicy is a site that takes up a policy while it runs.
func TestImagePolicy(t *testing.T) {
	key, stranger := cosigntest.NewKey(t), cosigntest.NewKey(t)
	repo := cluster.NewRepo(t, false, nil)
	n := cluster.NodeFor(t, repo)
	c := newCarrier(t, filepath.Join(t.TempDir(), "carried"))
	c.know(n.Paths.Images)
	toolbox := c.know(n.Paths.TestImages)["bothy.local/toolbox:1"]
	for _, name := range c.names() {
		c.sign(name, name, key)
	}
	for _, name := range []string{"signed", "unsigned", "stranger", "other", "denied"} {
		c.vary("bothy.local/"+name+":1", toolbox)
	}
	c.vary("elsewhere.local/app:1", toolbox)
	c.sign("bothy.local/signed:1", "bothy.local/signed:1", key)
	c.sign("bothy.local/stranger:1", "bothy.local/stranger:1", stranger)
	c.sign("bothy.local/other:1", "bothy.local/signed:1", key)
	c.sign("bothy.local/denied:1", "bothy.local/denied:1", key)
	n.Up(t, "--images", c.dir)
	s := &site{Node: n, repo: repo, kubectl: n.Kubectl(t), carrier: c, policy: policy(t, key, c.digests["bothy.local/denied:1"])}

	// Before there is a policy any image runs.
	s.kubectl.Apply(t, pod("early", "bothy.local/unsigned:1"))
	ready(t, s.kubectl, "early")
	kube := n.MustProcess(t, "kube")

	repo.Write(t, "trust/images.yaml", s.policy)
	s.inForce(t, s.push(t, "only what the team signed"), true)
	if now := n.MustProcess(t, "kube"); now.PID != kube.PID {
		t.Errorf("Kubernetes was restarted for the policy: %v, was %v", now, kube)
	}

	t.Run("signed images run, by digest", s.signedRun)
	t.Run("admission", s.admission)
	t.Run("kubelet", s.kubelet)
	t.Run("containerd's socket", s.socket)
	t.Run("explained", s.explained)
	t.Run("not an object of the API", s.noObject)
	t.Run("agent killed", s.agentKilled)
	t.Run("Kubernetes killed", s.kubeKilled)
	t.Run("a policy that cannot be obeyed", s.badPolicy)
	t.Run("taken back", s.takenBack)
}

// TestPolicyFromTheFirstCommit is a site that never ran anything unsigned: the
// policy is in force before the first image is imported.
func TestPolicyFromTheFirstCommit(t *testing.T) {
	key := cosigntest.NewKey(t)
	c := newCarrier(t, filepath.Join(t.TempDir(), "carried"))
	paths := cluster.Require(t)
	c.know(paths.Images)
	toolbox := c.know(paths.TestImages)["bothy.local/toolbox:1"]
	c.vary("bothy.local/signed:1", toolbox)
	c.sign("bothy.local/pause:1", "bothy.local/pause:1", key)
	c.sign("bothy.local/hello:1", "bothy.local/hello:1", key)
	c.sign("bothy.local/signed:1", "bothy.local/signed:1", key)
	repo := cluster.NewRepo(t, false, map[string]string{"trust/images.yaml": policy(t, key, "sha256:"+strings.Repeat("0", 64))})
	n := cluster.NodeFor(t, repo)
	n.Up(t, "--images", c.dir)
	k := n.Kubectl(t)
	k.Apply(t, pod("signed", "bothy.local/signed:1")) // which has two layers
	ready(t, k, "signed")
	// Nobody signed the toolbox, so it never came in.
	imports := n.Status(t).Imports
	if imports == nil || !strings.Contains(imports.Denied["bothy.local/toolbox:1"], "image policy denies bothy.local/toolbox:1") {
		t.Errorf("the importer does not say what it left out: %+v", imports)
	}
	client, ctx := containerd(t, n, "k8s.io")
	if _, err := client.GetImage(ctx, "bothy.local/toolbox:1"); !errdefs.IsNotFound(err) {
		t.Errorf("the toolbox: %v", err)
	}
}

func (s *site) signedRun(t *testing.T) {
	want := "bothy.local/signed@" + s.carrier.digests["bothy.local/signed:1"]
	c, ctx := containerd(t, s.Node, "k8s.io")
	signed, err := c.ImageService().Get(ctx, "bothy.local/signed:1")
	must(t, err)
	signed.Name = want // as a pull would name it, too
	if _, err := c.ImageService().Create(ctx, signed); err != nil && !errdefs.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	s.kubectl.Apply(t, pod("signed", "bothy.local/signed:1"))
	ready(t, s.kubectl, "signed")
	if got, err := s.kubectl.Field(t.Context(), "pod/signed", "{.spec.containers[0].image}"); err != nil || got != want {
		t.Errorf("image %s, want %s; %v", got, want, err)
	}
	s.WaitServing(t, patience)
}

// attacks are images that must not run, with the reason.
var attacks = map[string]string{
	"bothy.local/unsigned:1": "has no signature; sign it with: cosign sign",
	"bothy.local/stranger:1": "it is not by any of the keys",
	"bothy.local/other:1":    "it is a signature of sha256:",
	"bothy.local/denied:1":   "is on the deny list: CVE-2026-0001",
	"elsewhere.local/app:1":  "no policy in trust/images.yaml is about it",
	"nowhere.local/app:1":    "no policy in trust/images.yaml is about it",
}

func (s *site) admission(t *testing.T) {
	for image, reason := range attacks {
		if out := s.kubectl.ApplyRefused(t, pod("attack", image)); !strings.Contains(out, reason) {
			t.Errorf("%s: %s\nwant %q", image, out, reason)
		}
	}
	inInit := `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attack"}, "spec": {
		"initContainers": [{"name": "i", "image": "bothy.local/unsigned:1"}], "containers": [{"name": "c", "image": "bothy.local/signed:1"}]}}`
	if out := s.kubectl.ApplyRefused(t, inInit); !strings.Contains(out, "spec.initContainers[0].image") {
		t.Errorf("%s", out)
	}
	inVolume := `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attack"}, "spec": {
		"volumes": [{"name": "v", "image": {"reference": "bothy.local/unsigned:1"}}],
		"containers": [{"name": "c", "image": "bothy.local/signed:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}`
	if out := s.kubectl.ApplyRefused(t, inVolume); !strings.Contains(out, "spec.volumes[0].image.reference") {
		t.Errorf("%s", out)
	}
	// A pod that runs can be labelled whatever has become of its image.
	s.kubectl.Run(t, "label", "pod", "early", "seen=true")
}

// kubelet starts a container again whose image is not allowed any more.
func (s *site) kubelet(t *testing.T) {
	killContainer(t, s.Node, s.kubectl, "early")
	cluster.Eventually(t, patience, "the kubelet to be refused", func() error {
		got, err := s.kubectl.Output(t.Context(), "get", "events", "--field-selector", "involvedObject.name=early", "-o", "jsonpath={.items[*].message}")
		if err != nil {
			return err
		}
		if !strings.Contains(got, "image policy denies bothy.local/unsigned:1") || !strings.Contains(got, "has no signature") {
			return fmt.Errorf("events: %s", got)
		}
		return nil
	})
}

func (s *site) explained(t *testing.T) {
	r := s.Try(t, "image", "verify", "bothy.local/unsigned:1")
	if r.Code == 0 || !strings.Contains(r.Stdout, "denied\n  policy signed-by-the-team, authority team: ") {
		t.Errorf("%+v", r)
	}
	if r := s.Try(t, "image", "verify", "bothy.local/signed:1"); r.Code != 0 || !strings.Contains(r.Stdout, "signed by the key (SHA-256 ") {
		t.Errorf("%+v", r)
	}
	r = s.Try(t, "image", "verify", s.carrier.dir, "--policy", s.repo.Dir)
	if r.Code == 0 || !strings.Contains(r.Stdout, "bothy.local/signed:1 ("+s.carrier.digests["bothy.local/signed:1"]+"): may run") {
		t.Errorf("%+v", r)
	}
	if out := s.Run(t, "status"); !strings.Contains(out, " denied, the last ") {
		t.Errorf("%s", out)
	}
}

// noObject: what is not in the API cannot be deleted through it.
func (s *site) noObject(t *testing.T) {
	if out := s.kubectl.Refused(t, "delete", "clusterimagepolicies", "--all"); !strings.Contains(out, "doesn't have a resource type") {
		t.Errorf("%s", out)
	}
	s.stillDenied(t)
}

func (s *site) stillDenied(t *testing.T) {
	t.Helper()
	if out := s.kubectl.ApplyRefused(t, pod("attack", "bothy.local/unsigned:1")); !strings.Contains(out, "has no signature") {
		t.Errorf("%s", out)
	}
}

func (s *site) agentKilled(t *testing.T) {
	kill(t, s.MustProcess(t, "agent"))
	s.stillDenied(t)
	s.WaitServing(t, patience)
}

// kubeKilled: the policy is there before the API server is.
func (s *site) kubeKilled(t *testing.T) {
	kill(t, s.MustProcess(t, "kube"))
	cluster.Eventually(t, patience, "Kubernetes to be back", func() error {
		_, err := s.kubectl.Output(t.Context(), "get", "--raw", "/readyz")
		return err
	})
	s.stillDenied(t)
	s.kubectl.Run(t, "delete", "pod", "signed")
	s.kubectl.Apply(t, pod("signed", "bothy.local/signed:1"))
	ready(t, s.kubectl, "signed")
}

func (s *site) badPolicy(t *testing.T) {
	s.repo.Write(t, "trust/images.yaml", strings.Replace(s.policy, "authorities:", "policy: {type: cue, data: x}\n  authorities:", 1))
	commit := s.push(t, "a policy that nobody would obey")
	cluster.Eventually(t, patience, "the commit to be refused", func() error {
		r := s.Status(t).Git.Rejected
		if r == nil || r.Commit != commit || !strings.Contains(r.Problem, "trust/images.yaml:18: spec.policy: is not supported") {
			return fmt.Errorf("refused: %+v", r)
		}
		return nil
	})
	s.stillDenied(t)
}

func (s *site) takenBack(t *testing.T) {
	s.repo.Remove(t, "trust/images.yaml")
	s.inForce(t, s.push(t, "any image again"), false)
	s.kubectl.Apply(t, pod("late", "bothy.local/unsigned:1"))
	ready(t, s.kubectl, "late")
	ready(t, s.kubectl, "early")
}

// TestABundleUnderAPolicy is a site that starts from one file, with a policy, and never sees a network: what was
// signed runs, and what was put into the file without a signature does not come in.
func TestABundleUnderAPolicy(t *testing.T) {
	key := cosigntest.NewKey(t)
	paths := cluster.Require(t)
	c := newCarrier(t, filepath.Join(t.TempDir(), "depot"))
	for _, dir := range []string{paths.Images, paths.TestImages} {
		for name, image := range c.know(dir) {
			c.add(name, image)
			c.sign(name, name, key)
		}
	}
	toolbox := c.know(paths.TestImages)["bothy.local/toolbox:1"]
	c.vary("bothy.local/signed:1", toolbox)
	c.sign("bothy.local/signed:1", "bothy.local/signed:1", key)
	c.vary("bothy.local/unsigned:1", toolbox)
	repo := cluster.NewRepo(t, false, map[string]string{"trust/images.yaml": policy(t, key, "sha256:"+strings.Repeat("0", 64))})
	file := filepath.Join(t.TempDir(), "site.tar")
	depot := &cluster.Node{Paths: paths, State: t.TempDir()} // only its commands are used
	depot.Run(t, "bundle", repo.Dir, "--to", file, "--images", c.dir, "--image", "bothy.local/signed:1", "--image", "bothy.local/unsigned:1")

	n := cluster.NodeFor(t, nil)
	n.Run(t, "up", "--name", n.Name, "--isolated", "--bundle", file, "--path", repo.Path, "--trust-root", repo.TrustRoot())
	k := n.Kubectl(t)
	k.Apply(t, pod("signed", "bothy.local/signed:1"))
	ready(t, k, "signed")
	imports := n.Status(t).Imports
	if imports == nil || !strings.Contains(imports.Denied["bothy.local/unsigned:1"], "has no signature") {
		t.Errorf("the importer does not say what it left out: %+v", imports)
	}
	client, ctx := containerd(t, n, "k8s.io")
	if _, err := client.GetImage(ctx, "bothy.local/unsigned:1"); !errdefs.IsNotFound(err) {
		t.Errorf("the unsigned image: %v", err)
	}
	// A second bundle with a signature of it makes it right.
	c.sign("bothy.local/unsigned:1", "bothy.local/unsigned:1", key)
	n.Run(t, "image", "import", c.dir)
	k.Apply(t, pod("late", "bothy.local/unsigned:1"))
	ready(t, k, "late")
}
