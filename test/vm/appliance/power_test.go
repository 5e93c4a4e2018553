package appliance

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/vm/nbd"
)

// withLedger is a site whose workload counts, and says which number a disk and the API have
// acknowledged. The ConfigMap is not Git's: it would be set back.
const withLedger = `apiVersion: v1
kind: Namespace
metadata: {name: site}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: ledger
  namespace: site
  annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ledger, namespace: site}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: ledger, namespace: site}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ledger, namespace: site}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: ledger}
subjects: [{kind: ServiceAccount, name: ledger, namespace: site}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: site}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ledger, namespace: site}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: ledger}}
  template:
    metadata: {labels: {app: ledger}}
    spec:
      serviceAccountName: ledger
      containers:
        - name: ledger
          image: bothy.local/toolbox:1
          args: [ledger, /data/n, site/ledger]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: site}
spec:
  type: NodePort
  selector: {app: ledger}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// book is what the workload says.
type book struct{ acknowledged, inFile, inAPI int }

func readBook() (b book, err error) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", workloadPort))
	if err != nil {
		return b, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return b, err
	}
	_, err = fmt.Sscanf(string(body), "acknowledged %d, found %d in the file and %d in the API", &b.acknowledged, &b.inFile, &b.inAPI)
	return b, err
}

// auditor reads the book again and again, as long as the machine runs.
type auditor struct {
	mu   sync.Mutex
	last book
	seen bool
	stop chan struct{}
	done sync.WaitGroup
}

func audit() *auditor {
	a := &auditor{stop: make(chan struct{})}
	a.done.Go(func() {
		for {
			if b, err := readBook(); err == nil {
				a.mu.Lock()
				a.last, a.seen = b, true
				a.mu.Unlock()
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-a.stop:
				return
			}
		}
	})
	return a
}

// end returns what the workload has said last, if anything.
func (a *auditor) end() (last book, seen bool) {
	close(a.stop)
	a.done.Wait()
	return a.last, a.seen
}

func (a *auditor) answered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// cutting is a machine whose power fails.
type cutting struct {
	*updating
	disk *nbd.Disk
	m    *machine
	// acknowledged is the highest number that the workload has ever told.
	acknowledged int
}

// cutsPerImage is how often the power goes from the commit of an image to the proof that all is well.
const cutsPerImage = 10

// The power goes at random moments, again and again: of starts, of service, of an update and of what the machine does to get over
// the last time. The disk loses what it had in its cache. The machine always starts, what was acknowledged is there, and an update
// comes to its end, which may be that it was given up: a system that was cut off on trial twice looks like one that hangs.
//
// BOTHY_POWER_CUTS says how many times.
func TestPowerCuts(t *testing.T) {
	long(t)
	count := 5
	if text := os.Getenv("BOTHY_POWER_CUTS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	c := newCutting(t)
	c.m = c.boot(t, ordinary, c.updating.disk, c.seed)
	c.m.awaitPicture(t)
	c.awaitBook(t)
	start := time.Since(c.m.started)
	for cut := 0; cut < count; {
		label := fmt.Sprintf("system-%d", 1+cut/cutsPerImage)
		image := c.make(t, label, variant{later: 1 + cut/cutsPerImage})
		c.name(t, image, time.Hour)
		for range min(cutsPerImage, count-cut) {
			cut++
			t.Logf("cut %d, in or after the update to %s", cut, label)
			c.cutAfter(t, rand.N(start))
			c.powerOnAgain(t)
		}
		c.m.awaitPicture(t)
		c.awaitBook(t)
		end := c.m.await(t, 3*c.m.patience(), regexp.MustCompile(running(image).String()+"|"+refusal(image, "power was gone").String()))
		t.Logf("all is well %.0f s after power-on; %d acknowledged, %d flushes; %s", time.Since(c.m.started).Seconds(), c.acknowledged, c.disk.Flushes(), strings.TrimSpace(end))
	}
}

func newCutting(t *testing.T) *cutting {
	t.Helper()
	c := &cutting{updating: newUpdating(t, withLedger)}
	var err error
	if c.disk, err = nbd.Open(c.updating.disk.File); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(c.dir, "disk.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go c.disk.Serve(l)
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), c.disk.Close()); err != nil {
			t.Error(err)
		}
	})
	c.updating.disk.File = "nbd:unix:" + socket
	return c
}

// cutAfter lets the machine run for a while, and cuts the power.
func (c *cutting) cutAfter(t *testing.T, d time.Duration) {
	t.Helper()
	a := audit()
	select {
	case <-time.After(d):
	case <-c.m.Done():
		t.Fatalf("the machine is off: %v", c.m.Err())
	}
	if err := c.m.Kill(); err != nil {
		t.Fatal(err)
	}
	kept := []float64{0, 0.5, 0.9}[rand.N(3)]
	cached, lost, err := c.disk.Cut(kept)
	if err != nil {
		t.Fatal(err)
	}
	last, seen := a.end()
	c.compare(t, last, seen)
	t.Logf("the power goes after %.1f s: %d blocks were in the disk's cache, %d are lost; %d is acknowledged", d.Seconds(), cached, lost, c.acknowledged)
}

func (c *cutting) powerOnAgain(t *testing.T) {
	t.Helper()
	c.disk.On()
	c.m = c.powerOn(t, ordinary, c.updating.disk)
}

// compare holds what the workload found when it started against what it had acknowledged before.
func (c *cutting) compare(t *testing.T, b book, seen bool) {
	t.Helper()
	if !seen {
		return
	}
	if b.inFile < c.acknowledged || b.inAPI < c.acknowledged {
		t.Errorf("%d was acknowledged; found were %d in the file and %d in the API", c.acknowledged, b.inFile, b.inAPI)
	}
	c.acknowledged = max(c.acknowledged, b.acknowledged)
}

// awaitBook waits for the workload.
func (c *cutting) awaitBook(t *testing.T) {
	t.Helper()
	a := audit()
	deadline := time.Now().Add(c.m.patience())
	for !a.answered() {
		if time.Now().After(deadline) || c.m.Err() != nil {
			t.Fatalf("the workload does not answer within %s; %v", c.m.patience(), c.m.Err())
		}
		time.Sleep(200 * time.Millisecond)
	}
	last, seen := a.end()
	c.compare(t, last, seen)
}
