package appliance

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/cluster/gitserver"
	"github.com/bothy-os/bothy/test/vm/qemu"
)

// withData is a site whose workload answers with what a Job wrote to a volume, once: the name
// that the cluster gave to the Job's pod. It changes if the cluster's state is lost, or the
// volume.
const withData = `apiVersion: v1
kind: Namespace
metadata: {name: site}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: site}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: writer, namespace: site}
spec:
  template:
    spec:
      restartPolicy: OnFailure
      containers:
        - name: write
          image: bothy.local/toolbox:1
          args: [write, -sync, /data/id, "written by $(UID)"]
          env:
            - name: UID
              valueFrom: {fieldRef: {fieldPath: metadata.uid}}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, namespace: site}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
        - name: hello
          image: bothy.local/hello:1
          env: [{name: MESSAGE_FILE, value: /data/id}]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Service
metadata: {name: hello, namespace: site}
spec:
  type: NodePort
  selector: {app: hello}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// withoutWorkload is for tests of what happens before any could start.
const withoutWorkload = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: nothing, namespace: default}\n"

// updating is a machine with a repository and a registry.
type updating struct {
	*bench
	repo   *cluster.Repo
	server *gitserver.Server
	store  *store
	disk   qemu.Disk
	seed   qemu.Disk
}

func newUpdating(t *testing.T, site string) *updating {
	t.Helper()
	b := newBench(t)
	b.restarts = true
	repo := cluster.NewRepo(t, false, map[string]string{"clusters/default/site.yaml": site})
	server, err := gitserver.Start(filepath.Dir(repo.Bare))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	b.paths.Images = b.joinImages(t)
	u := &updating{bench: b, repo: repo, server: server, store: startStore(t, server)}
	u.seed = qemu.Disk{Serial: "seed", File: b.seed(t, repo, server), ReadOnly: true}
	u.disk = qemu.Disk{Serial: "system", File: b.disk(t)}
	return u
}

// joinImages is a layout with the images of the product and those of tests.
func (b *bench) joinImages(t *testing.T) string {
	t.Helper()
	to := filepath.Join(b.dir, "images")
	b.run(t, "cp", "-r", b.paths.Images, to)
	b.run(t, "cp", "-r", b.paths.TestImages+"/blobs", to)
	var all map[string]any
	var manifests []any
	for _, dir := range []string{b.paths.TestImages, b.paths.Images} {
		data, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if err == nil {
			err = json.Unmarshal(data, &all)
		}
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, all["manifests"].([]any)...)
	}
	all["manifests"] = manifests
	data, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "index.json"), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// name pushes a commit that names an image.
func (u *updating) name(t *testing.T, image string, health time.Duration) string {
	t.Helper()
	u.repo.Write(t, "clusters/default/cluster.yaml", fmt.Sprintf(`apiVersion: bothy.dev/v1alpha1
kind: Cluster
metadata: {name: default}
spec:
  os:
    image: %s
    healthTimeout: %s
    registry: {plainHTTP: true}
`, image, health))
	return u.repo.Push(t, "Run "+short(image), cluster.Signed)
}

// short is how the console shows an image.
func short(image string) string {
	_, digest, _ := strings.Cut(image, "@")
	return digest[:len("sha256:")+12]
}

// make builds a variant and pushes it.
func (u *updating) make(t *testing.T, label string, v variant) string {
	t.Helper()
	began := time.Now()
	dir, digest := u.build(t, label, v)
	image := u.store.push(t, dir, digest)
	t.Logf("%s is %s, built in %.0f s", label, short(image), time.Since(began).Seconds())
	return image
}

// message is what the workload answers.
func message() (string, error) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", workloadPort))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(body), "\n")
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(line, "written by ") {
		return "", fmt.Errorf("%s: %.200s", answer.Status, body)
	}
	return line, nil
}

func (m *machine) awaitMessage(t *testing.T) (got string) {
	t.Helper()
	cluster.Eventually(t, m.patience(), "the workload to answer", func() (err error) {
		got, err = message()
		return err
	})
	return got
}

// refusal is how the console shows that a machine does not run an image.
func refusal(image, why string) *regexp.Regexp {
	return regexp.MustCompile(`problem +operating system: [^\n]*` + short(image) + `[^\n]*` + why)
}

// running is how the console shows which image runs for good.
func running(image string) *regexp.Regexp {
	return regexp.MustCompile(`system +` + short(image) + `\s*\n`)
}

// Somebody commits another image of the operating system, and nothing else is to be done.
func TestUpdateFromGit(t *testing.T) {
	u := newUpdating(t, withData)
	second := u.make(t, "second", variant{later: 1})
	m := u.boot(t, ordinary, u.disk, u.seed)
	m.awaitPicture(t)
	before := m.awaitMessage(t)
	t.Logf("after %.0f s the workload answers: %s", time.Since(m.started).Seconds(), before)

	pushed := time.Now()
	u.name(t, second, time.Hour)
	m.await(t, m.patience(), regexp.MustCompile(`system +fetching `+short(second)))
	m.await(t, m.patience(), regexp.MustCompile(`system +writing `+short(second)))
	m.await(t, m.patience(), regexp.MustCompile(`system +starting `+short(second)))
	t.Logf("%.0f s after the push the machine starts again", time.Since(pushed).Seconds())
	m.await(t, m.patience(), regexp.MustCompile(`system +`+short(second)+` on trial`))
	m.await(t, m.patience(), running(second))
	t.Logf("%.0f s after the push it runs the new system for good", time.Since(pushed).Seconds())
	if after := m.awaitMessage(t); after != before {
		t.Errorf("the data is not what it was: %q, before %q", after, before)
	}

	// It is what the firmware starts from now on: the power goes.
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	m = u.powerOn(t, ordinary, u.disk)
	m.awaitPicture(t)
	m.await(t, m.patience(), running(second))
	if after := m.awaitMessage(t); after != before {
		t.Errorf("the data is not what it was: %q, before %q", after, before)
	}
}

// Systems that do not work: the old one is back by itself, says why, and does not try again. What is good after it, is taken.
func TestASystemThatDoesNotWork(t *testing.T) {
	long(t)
	for label, c := range map[string]struct {
		variant
		// trace is what the console shows of the fault; why is how the old system explains it.
		trace, why string
		attempts   int
	}{
		"panics": {variant{replace: "bothy", fault: "panic"}, `Kernel panic - not syncing: sysrq triggered crash`, `hung, or panicked, or the power was gone`, 2},
		"hangs":  {variant{replace: "bothy", fault: "hang"}, `BdsDxe: starting Boot\w+ "bothy, on trial"`, `hung, or panicked, or the power was gone`, 2},
		"ends":   {variant{replace: "bothy", fault: "exit"}, `was not found healthy in time, going back`, `not found healthy within 1m`, 1},
	} {
		t.Run(label, func(t *testing.T) {
			u := newUpdating(t, withData)
			bad := u.make(t, label, c.variant)
			m := u.boot(t, ordinary, u.disk, u.seed)
			m.awaitPicture(t)
			before := m.awaitMessage(t)
			u.name(t, bad, time.Minute)
			m.await(t, m.patience(), regexp.MustCompile(`system +starting `+short(bad)))
			left := time.Now()
			m.await(t, m.patience(), regexp.MustCompile(c.trace))
			m.await(t, time.Duration(c.attempts)*m.patience(), refusal(bad, c.why))
			t.Logf("%.0f s after the machine left for it, the old system has given it up", time.Since(left).Seconds())
			starts := len(stub.FindAllString(m.Console.String(), -1))
			if want := 1 + 2*c.attempts; starts != want {
				t.Errorf("the machine was started %d times, not %d", starts, want)
			}
			if after := m.awaitMessage(t); after != before {
				t.Errorf("the data is not what it was: %q, before %q", after, before)
			}
			good := u.make(t, "good", variant{later: 1})
			u.name(t, good, time.Hour)
			m.await(t, 2*m.patience(), running(good))
			if after := m.awaitMessage(t); after != before {
				t.Errorf("the data is not what it was: %q, before %q", after, before)
			}
		})
	}
}

// stub is what the console shows whenever a boot file starts.
var stub = regexp.MustCompile(`EFI stub: Loaded initrd`)

// What cannot be trusted, or does not arrive, is not started at all; what is good after it is.
func TestASystemThatIsNotStarted(t *testing.T) {
	long(t)
	u := newUpdating(t, withoutWorkload)
	other := u.make(t, "other", variant{replace: "bothy", fault: "exit"})
	m := u.boot(t, ordinary, u.disk, u.seed)
	m.awaitPicture(t)
	m.await(t, m.patience(), regexp.MustCompile(`state +ready`))

	u.store.truncate.Store(1 << 20)
	u.name(t, other, time.Minute)
	m.await(t, m.patience(), regexp.MustCompile(`problem +operating system: fetch the operating system: [^\n]*broke off after`))
	u.store.truncate.Store(0)

	u.repo.Write(t, "trust/images.yaml", policyFor(t, u))
	u.repo.Push(t, "Signed images only", cluster.Signed)
	m.await(t, m.patience(), regexp.MustCompile(`problem +operating system: the operating system is not started: image policy denies`))

	missing := strings.Replace(other, short(other), "sha256:000000000000", 1)
	u.name(t, missing, time.Minute)
	m.await(t, m.patience(), regexp.MustCompile(`problem +operating system: find the operating system: `))
	if starts := len(stub.FindAllString(m.Console.String(), -1)); starts != 1 {
		t.Errorf("the machine was started %d times", starts)
	}
}

// policyFor lets the images of the site run, and systems that nobody has signed not.
func policyFor(t *testing.T, u *updating) string {
	t.Helper()
	key := filepath.Join(u.dir, "system.key")
	u.run(t, "openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key)
	public := u.run(t, "openssl", "ec", "-in", key, "-pubout")
	public = public[strings.Index(public, "-----BEGIN"):]
	return fmt.Sprintf(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: local}
spec:
  images: [{glob: "bothy.local/**"}]
  authorities: [{static: {action: pass}}]
---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: system}
spec:
  images: [{glob: "%s/**"}]
  authorities:
    - key:
        data: |
          %s
`, u.store.host, strings.ReplaceAll(strings.TrimSpace(public), "\n", "\n          "))
}
