package appliance

import (
	"crypto/tls"
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

// Somebody plugs in a machine and a stick, and leaves.
func TestPowerOnToServingWorkload(t *testing.T) {
	b := newBench(t)
	repo := cluster.RepoFrom(t, filepath.Join(b.paths.Root, "examples", "repo"), false)
	server, err := gitserver.Start(filepath.Dir(repo.Bare))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	seed, disk := b.seed(t, repo, server), qemu.Disk{Serial: "system", File: b.disk(t)}
	m := b.boot(t, ordinary, disk, qemu.Disk{Serial: "seed", File: seed, ReadOnly: true})
	b.awaitWorkload(t, m)
	m.await(t, m.patience(), regexp.MustCompile(`commit +`+repo.Head(t)[:12]+` .*signed by `+repo.Signer))

	// The power goes, and somebody has taken the stick away.
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	m = b.boot(t, ordinary, disk)
	b.awaitWorkload(t, m)
	if text := m.Console.String(); strings.Contains(text, "waiting for a boot configuration") {
		t.Error("the machine has forgotten its boot configuration")
	}
}

func TestThePowerButtonSwitchesTheMachineOff(t *testing.T) {
	b := newBench(t)
	m := b.boot(t, ordinary, qemu.Disk{Serial: "system", File: b.disk(t)})
	m.await(t, bootLimit, regexp.MustCompile(`state +waiting for a boot configuration`))
	b.pressPowerButton(t)
	m.await(t, bootLimit, regexp.MustCompile(`reboot: Power down`))
	<-m.Done()
	if err := m.Err(); err != nil {
		t.Error(err)
	}
}

// awaitWorkload follows a machine from power-on to the workload's answer.
func (b *bench) awaitWorkload(t *testing.T, m *machine) {
	t.Helper()
	times := m.watch(t)
	m.awaitPicture(t)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // reached at an address that is not in its certificate
	}}
	// Who is not known may ask whether the API is ready, and nothing else.
	url := fmt.Sprintf("https://127.0.0.1:%d/readyz", apiPort)
	cluster.Eventually(t, m.patience(), "the API to be ready", func() error { return get(client, url, "ok") })
	times.mark("API is ready")
	url = fmt.Sprintf("http://127.0.0.1:%d/", workloadPort)
	cluster.Eventually(t, m.patience(), "the workload to answer", func() error { return get(client, url, "Hello from a signed commit") })
	times.mark("workload answers")
	t.Logf("where the time went, under %s:\n%s", b.accelerator, times)
}

// seed makes the volume that goes into the machine, as an operator does.
func (b *bench) seed(t *testing.T, repo *cluster.Repo, server *gitserver.Server) string {
	t.Helper()
	root, err := os.ReadFile(repo.TrustRoot())
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`apiVersion: bothy.dev/v1alpha1
kind: BootConfig
machineName: site
repository:
  url: %s
  path: %s
  interval: 10s
  credentialsFile: /var/lib/bothy/seed/credentials.yaml
trust:
  root:
    %s
`, server.URL(filepath.Base(repo.Bare)), repo.Path, strings.ReplaceAll(strings.TrimSpace(string(root)), "\n", "\n    "))
	file, credentials, seed := filepath.Join(b.dir, "boot.yaml"), filepath.Join(b.dir, "credentials.yaml"), filepath.Join(b.dir, "seed.img")
	for path, text := range map[string]string{file: config, credentials: server.Credentials("")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.run(t, b.paths.Bothy(), "os", "seed", "--config", file, "--include", "images="+b.paths.Images, "--include", "credentials.yaml="+credentials, seed)
	return seed
}

// get asks for a page and looks for words in it.
func get(client *http.Client, url, words string) error {
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !strings.Contains(string(body), words) {
		return fmt.Errorf("%s: %.200s", answer.Status, body)
	}
	return nil
}
