//go:build integration

package bootstrap

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/pki"
	"github.com/bothy-os/bothy/internal/supervise"
)

const (
	nodeAddress = "192.0.2.10"
	apiPort     = 6443

	envNetwork = "BOTHY_TEST_IN_NETWORK"
	envNode    = "BOTHY_TEST_NODE_DIR"
	envObjects = "BOTHY_TEST_OBJECTS"
)

// TestMain runs the tests in a network namespace of their own, and is the
// control plane when a test starts this binary as one.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envNode) != "":
		os.Exit(controlPlaneMain(os.Getenv(envNode)))
	case os.Getenv(envNetwork) != "":
		os.Exit(m.Run())
	case os.Getuid() != 0:
		fmt.Println("SKIP: the integration tests need root to make a network namespace")
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envNetwork+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Println("tests in their own network namespace:", err)
		os.Exit(1)
	}
}

// setUpNetwork gives the namespace the node's address.
func setUpNetwork(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(nodeAddress + "/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		t.Fatal(err)
	}
}

func testConfig(dir string, log *slog.Logger) Config {
	return Config{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		NodeName: "node1", NodeIP: netip.MustParseAddr(nodeAddress), Cluster: v1alpha1.NewCluster("test"),
		Identities:    []Identity{{Name: "nobody", User: "nobody"}, {Name: "reconciler", User: "bothy:reconciler", Groups: []string{"system:masters"}}},
		SystemObjects: []byte(os.Getenv(envObjects)),
		Log:           log,
	}
}

// controlPlaneMain runs a control plane until SIGTERM. SIGUSR1 rotates the
// encryption key.
func controlPlaneMain(dir string) int {
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	fs.Set("logtostderr", "false")
	fs.Set("stderrthreshold", "FATAL")
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelInfo}))
	cp, err := New(testConfig(dir, log))
	if err != nil {
		fmt.Println("new:", err)
		return 1
	}
	s, err := supervise.New(log, cp.Components()...)
	if err != nil {
		fmt.Println("supervise:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() {
		for range usr1 {
			fmt.Println("rotated:", cp.RotateEncryptionKey(ctx))
		}
	}()
	go func() {
		for _, c := range cp.Components() {
			if s.WaitReady(ctx, c.Name) != nil {
				return
			}
		}
		fmt.Println("everything is ready")
	}()
	if err := s.Run(ctx); err != nil {
		fmt.Println("ended:", err)
		return 1
	}
	return 0
}

// node is a directory with a control plane that can be started and stopped.
type node struct {
	t       *testing.T
	dir     string
	paths   Paths
	objects string
	cmd     *exec.Cmd
	out     *output
	done    chan struct{}
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func newNode(t *testing.T) *node {
	setUpNetwork(t)
	dir, err := os.MkdirTemp("", "bothy-cp")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, paths: Paths{StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}}
	t.Cleanup(func() {
		n.kill()
		os.RemoveAll(dir)
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.out, n.done = &output{}, make(chan struct{})
	n.cmd = exec.Command("/proc/self/exe")
	n.cmd.Env = append(os.Environ(), envNode+"="+n.dir, envObjects+"="+n.objects)
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		n.cmd.Wait()
		close(n.done)
	}()
}

// startReady starts and returns how long it took until everything was ready.
func (n *node) startReady() time.Duration {
	n.t.Helper()
	began := time.Now()
	n.start()
	n.waitFor("everything is ready")
	return time.Since(began)
}

func (n *node) waitFor(line string) {
	n.t.Helper()
	n.eventually(2*time.Minute, "the line "+line, func() bool {
		select {
		case <-n.done:
			n.t.Fatalf("the control plane ended while waiting for %q:\n%s", line, n.out)
		default:
		}
		return strings.Contains(n.out.String(), line)
	})
}

func (n *node) eventually(limit time.Duration, what string, ok func() bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), limit)
	defer cancel()
	if err := poll(ctx, 20*time.Millisecond, ok); err != nil {
		n.t.Fatalf("gave up waiting for %s\n%s", what, n.out)
	}
}

func (n *node) kill() {
	if n.cmd != nil {
		n.cmd.Process.Kill()
		<-n.done
	}
}

func (n *node) stop() {
	n.t.Helper()
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		n.t.Fatalf("does not stop:\n%s", n.out)
	}
}

func (n *node) client(identity string) *kubernetes.Clientset {
	n.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", n.paths.Kubeconfig(identity))
	if err != nil {
		n.t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		n.t.Fatal(err)
	}
	return client
}

func (n *node) httpClient(config *tls.Config) *http.Client {
	ca, err := os.ReadFile(n.paths.ClusterCA())
	if err != nil {
		n.t.Fatal(err)
	}
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 10 * time.Second}
}

func url(path string) string { return fmt.Sprintf("https://%s:%d%s", nodeAddress, apiPort, path) }

const storageClass = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: test}
provisioner: example.org/test
`

func TestControlPlane(t *testing.T) {
	n := newNode(t)
	n.objects = storageClass
	t.Logf("cold start: ready after %v", n.startReady())
	admin := n.client(pki.Admin)
	ctx := t.Context()

	t.Run("readiness lists the checks that tools look for", func(t *testing.T) {
		body, err := admin.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "1").DoRaw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, hook := range replacedHooks {
			if want := "[+]poststarthook/" + hook + " ok"; strings.Count(string(body), want) != 1 {
				t.Errorf("no %q in\n%s", want, body)
			}
		}
	})

	t.Run("anonymous sees health and nothing else", func(t *testing.T) {
		client := n.httpClient(&tls.Config{})
		for path, want := range map[string]int{
			"/livez": 200, "/readyz": 200, "/healthz": 200,
			"/version": 401, "/api": 401, "/apis": 401, "/metrics": 401, "/openapi/v2": 401, "/api/v1/secrets": 401, "/livezz": 401, "/debug/pprof/": 401,
		} {
			resp, err := client.Get(url(path))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
			}
		}
	})

	t.Run("old TLS is refused", func(t *testing.T) {
		if _, err := n.httpClient(&tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}).Get(url("/livez")); err == nil {
			t.Error("TLS 1.1 is accepted")
		}
	})

	t.Run("rights", func(t *testing.T) {
		if _, err := n.client("nobody").CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("nobody lists pods: %v", err)
		}
		if _, err := n.client(pki.Scheduler).CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("the scheduler lists secrets: %v", err)
		}
		if _, err := n.client(pki.Scheduler).CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err != nil {
			t.Errorf("the scheduler cannot list pods: %v", err)
		}
		if _, err := admin.RbacV1().ClusterRoles().Get(ctx, "cluster-admin", metav1.GetOptions{}); err != nil {
			t.Errorf("admin: %v", err)
		}
		_, err := n.client(pki.Kubelet).CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("a kubelet registers as another node: %v", err)
		}
	})

	t.Run("pod security", func(t *testing.T) {
		privileged := true
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x", SecurityContext: &corev1.SecurityContext{Privileged: &privileged}}}},
		}
		if _, err := admin.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("a privileged pod in default: %v", err)
		}
		if _, err := admin.CoreV1().Pods("bothy-system").Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil && !strings.Contains(err.Error(), "serviceaccount") {
			t.Errorf("a privileged pod in bothy-system: %v", err)
		}
	})

	t.Run("the kubernetes Service leads to the API", func(t *testing.T) {
		slice, err := admin.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil || slice.Endpoints[0].Addresses[0] != nodeAddress || *slice.Ports[0].Port != apiPort {
			t.Errorf("endpoints %v, %v", slice, err)
		}
		n.eventually(10*time.Second, "the Service", func() bool {
			svc, err := admin.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
			return err == nil && svc.Spec.ClusterIP == "10.96.0.1"
		})
	})

	t.Run("listens on the node's address alone", func(t *testing.T) {
		data, err := os.ReadFile("/proc/self/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		six, _ := os.ReadFile("/proc/self/net/tcp6")
		var listening []string
		for _, line := range strings.Split(string(data)+string(six), "\n") {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "0A" {
				listening = append(listening, f[1])
			}
		}
		if len(listening) != 1 || !strings.HasSuffix(listening[0], fmt.Sprintf(":%04X", apiPort)) {
			t.Errorf("listening: %v", listening)
		}
		if unix, _ := os.ReadFile("/proc/self/net/unix"); bytes.Contains(unix, []byte(" @")) {
			t.Errorf("abstract unix sockets:\n%s", unix)
		}
	})

	t.Run("secrets are encrypted and the key can be replaced", func(t *testing.T) {
		const plain = "correct-horse-battery-staple"
		for i := range 5 {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)}, StringData: map[string]string{"password": plain}}
			if _, err := admin.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		before, err := os.ReadFile(n.paths.EncryptionKeys())
		if err != nil {
			t.Fatal(err)
		}
		n.cmd.Process.Signal(syscall.SIGUSR1)
		n.waitFor("rotated: <nil>")
		after, _ := os.ReadFile(n.paths.EncryptionKeys())
		if bytes.Equal(before, after) {
			t.Error("the key did not change")
		}
		secret, err := admin.CoreV1().Secrets("default").Get(ctx, "s3", metav1.GetOptions{})
		if err != nil || string(secret.Data["password"]) != plain {
			t.Errorf("after the rotation: %v, %v", secret, err)
		}
		for _, dir := range []string{n.paths.Etcd(), n.paths.Audit()} {
			if file := fileContaining(t, dir, plain); file != "" {
				t.Errorf("%s holds the secret in the clear", file)
			}
		}
	})

	t.Run("a renewed serving certificate is used at once", func(t *testing.T) {
		before := servedSerial(t)
		spec, err := ptr(testConfig(n.dir, slog.Default())).pkiSpec(n.paths)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(n.paths.APIServerServing()); err != nil {
			t.Fatal(err)
		}
		if err := pki.NewStore(spec, time.Now, slog.New(slog.DiscardHandler)).Ensure(); err != nil {
			t.Fatal(err)
		}
		n.eventually(20*time.Second, "the new certificate", func() bool { return servedSerial(t) != before })
	})

	t.Run("kubectl", func(t *testing.T) {
		kubectl, err := exec.LookPath("kubectl")
		if err != nil {
			t.Skip("kubectl is not installed")
		}
		cmd := exec.Command(kubectl, "--kubeconfig", n.paths.AdminKubeconfig(), "--cache-dir", t.TempDir(), "auth", "can-i", "create", "deployments.apps")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "yes") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("restart", func(t *testing.T) {
		n.stop()
		n.objects = ""
		t.Logf("warm start: ready after %v", n.startReady())
		n.eventually(10*time.Second, "the storage class that is no longer asked for to go", func() bool {
			_, err := admin.StorageV1().StorageClasses().Get(ctx, "test", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
		if strings.Contains(n.out.String(), "issued anew") {
			t.Errorf("certificates were made again:\n%s", n.out)
		}
	})
}

func ptr[T any](v T) *T { return &v }

func servedSerial(t *testing.T) string {
	t.Helper()
	conn, err := tls.Dial("tcp", net.JoinHostPort(nodeAddress, fmt.Sprint(apiPort)), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func fileContaining(t *testing.T, dir, text string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestKillLosesNoAcknowledgedWrite kills the control plane ten times while it
// is written to, every other time with a key rotation under way.
func TestKillLosesNoAcknowledgedWrite(t *testing.T) {
	const rounds, writers = 10, 4
	n := newNode(t)
	var mu sync.Mutex
	acknowledged := map[string]string{}

	for round := range rounds {
		n.startReady()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range writers {
			client := n.client("reconciler")
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					name, value := fmt.Sprintf("w-%d-%d-%d", round, w, i), fmt.Sprint(rand.Int64())
					secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"v": value}}
					if _, err := client.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
						continue
					}
					mu.Lock()
					acknowledged[name] = value
					mu.Unlock()
				}
			})
		}
		if round%2 == 1 {
			n.cmd.Process.Signal(syscall.SIGUSR1)
		}
		// The moment is random, the condition for it is that writes are flowing.
		mu.Lock()
		target := len(acknowledged) + 50 + rand.IntN(400)
		mu.Unlock()
		n.eventually(time.Minute, "writes to be acknowledged", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) >= target
		})
		n.kill()
		cancel()
		wg.Wait()
	}

	n.startReady()
	stored := map[string]string{}
	list, err := n.client("reconciler").CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		stored[s.Name] = string(s.Data["v"])
	}
	lost := 0
	for name, value := range acknowledged {
		if stored[name] != value {
			lost++
		}
	}
	t.Logf("%d writes acknowledged over %d kills, %d stored, %d lost", len(acknowledged), rounds, len(stored), lost)
	if lost > 0 {
		t.Errorf("%d acknowledged writes are lost", lost)
	}
	n.cmd.Process.Signal(syscall.SIGUSR1)
	n.waitFor("rotated: <nil>")
}

func TestExpiredCertificatesAreRenewedAtStart(t *testing.T) {
	n := newNode(t)
	spec, err := ptr(testConfig(n.dir, slog.Default())).pkiSpec(n.paths)
	if err != nil {
		t.Fatal(err)
	}
	halfAYearAgo := func() time.Time { return time.Now().AddDate(0, -6, 0) }
	if err := pki.NewStore(spec, halfAYearAgo, slog.New(slog.DiscardHandler)).Ensure(); err != nil {
		t.Fatal(err)
	}
	n.startReady()
	if _, err := n.client(pki.Admin).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(n.out.String(), "expired on") {
		t.Errorf("nothing was expired:\n%s", n.out)
	}
}

func TestPortInUse(t *testing.T) {
	n := newNode(t)
	l, err := net.Listen("tcp", net.JoinHostPort(nodeAddress, fmt.Sprint(apiPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n.start()
	<-n.done
	for _, want := range []string{"in use by process " + fmt.Sprint(os.Getpid()), "spec.controlPlane.port"} {
		if !strings.Contains(n.out.String(), want) {
			t.Errorf("no %q in\n%s", want, n.out)
		}
	}
}

func TestDamagedStateIsAClearError(t *testing.T) {
	n := newNode(t)
	n.startReady()
	n.stop()
	for file, want := range map[string]string{
		filepath.Join(n.paths.Etcd(), "member/snap/db"): "restore a snapshot",
		n.paths.ClusterCAKey():                          "restore",
		n.paths.EncryptionKeys():                        "restore the file from a backup",
	} {
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.Repeat([]byte{0xA5}, len(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start()
		n.eventually(30*time.Second, "an error about "+file, func() bool {
			out := n.out.String()
			return strings.Contains(out, file) && strings.Contains(out, want)
		})
		n.kill()
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.startReady() // nothing was changed by the failed starts
}

func TestNewRefusesUnknownFlags(t *testing.T) {
	config := testConfig(t.TempDir(), slog.New(slog.DiscardHandler))
	config.Cluster.Spec.ControlPlane.Scheduler.ExtraArgs = map[string]string{"no-such-flag": "1"}
	_, err := New(config)
	if err == nil || !strings.Contains(err.Error(), "spec.controlPlane.scheduler.extraArgs") || !strings.Contains(err.Error(), "no-such-flag") {
		t.Error(err)
	}
	if _, err := os.Stat(config.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Error("New has touched the disk")
	}
}
