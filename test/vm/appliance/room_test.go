package appliance

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const fillerPort = 30081

// filler takes all the room there is, as soon as it runs. One that is critical is not evicted.
func filler(critical bool) string {
	more := ""
	if critical {
		more = "\n      priorityClassName: system-node-critical\n      tolerations: [{operator: Exists}]"
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: filler, namespace: site}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: filler}}
  template:
    metadata: {labels: {app: filler}}
    spec:%s
      terminationGracePeriodSeconds: 1
      containers:
        - name: filler
          image: bothy.local/toolbox:1
          args: [fill, /scratch/file]
          volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes: [{name: scratch, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: filler, namespace: site}
spec:
  type: NodePort
  selector: {app: filler}
  ports: [{port: 80, targetPort: 8080, nodePort: %d}]
`, more, fillerPort)
}

// forward lets the host reach a port of the machine.
func (b *bench) forward(t *testing.T, port int) {
	t.Helper()
	b.qmp(t, fmt.Sprintf(`{"execute": "human-monitor-command", "arguments": {"command-line": "hostfwd_add net tcp:127.0.0.1:%[1]d-:%[1]d"}}`, port))
}

func fills() error {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return get(client, fmt.Sprintf("http://127.0.0.1:%d/", fillerPort), "there is no more room")
}

// A pod takes all the room on the disk. An ordinary one is evicted; with one that must not be, the machine still does what Git says,
// even after its power has gone.
func TestADiskThatIsFull(t *testing.T) {
	long(t)
	const file = "clusters/default/filler.yaml"
	full := regexp.MustCompile(`disk +full: 0 of \d+ MiB are free`)
	u := newUpdating(t, withData)
	m := u.boot(t, ordinary, u.disk, u.seed)
	m.awaitPicture(t)
	u.forward(t, fillerPort)
	before := m.awaitMessage(t)

	u.repo.Write(t, file, filler(false))
	u.repo.Push(t, "A pod that fills the disk", cluster.Signed)
	cluster.Eventually(t, m.patience(), "the disk to be full", fills)
	began := time.Now()
	cluster.Eventually(t, m.patience(), "the pod that fills it to be evicted", func() error {
		if fills() == nil {
			return errors.New("it still runs")
		}
		return nil
	})
	t.Logf("evicted after %.0f s", time.Since(began).Seconds())
	if after := m.awaitMessage(t); after != before {
		t.Errorf("the data is not what it was: %q, before %q", after, before)
	}

	u.repo.Write(t, file, filler(true))
	u.repo.Push(t, "One that is critical", cluster.Signed)
	cluster.Eventually(t, m.patience(), "the disk to be full", fills)
	m.await(t, m.patience(), full)
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	m = u.powerOn(t, ordinary, u.disk)
	m.awaitPicture(t)
	m.await(t, m.patience(), full)
	u.repo.Remove(t, file)
	commit := u.repo.Push(t, "Without it", cluster.Signed)
	began = time.Now()
	m.await(t, m.patience(), regexp.MustCompile(`commit +`+commit[:12]))
	if after := m.awaitMessage(t); after != before {
		t.Errorf("the data is not what it was: %q, before %q", after, before)
	}
	t.Logf("all is well %.0f s after the commit", time.Since(began).Seconds())
	if text := m.Console.String(); strings.Contains(text[max(0, len(text)-1000):], "disk      full") {
		t.Error("the console still says that the disk is full")
	}
}
