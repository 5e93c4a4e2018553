// Package crash kills bothy's processes at random moments under load and shows
// that nobody but the killed process notices: containers run on, connections
// live on, and what the API server acknowledged is there afterwards.
package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const (
	patience = 90 * time.Second
	kills    = 10
	// maxPause is the longest time between two kills.
	maxPause = 4 * time.Second
	// longestSilence is how long a connection may be quiet while both cores are
	// busy starting Kubernetes; a lost and retransmitted packet alone costs
	// 200 ms.
	longestSilence = 2 * time.Second
)

// seed makes a run repeatable: CRASH_SEED=n go test ...
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("CRASH_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("CRASH_SEED: %v", err)
		}
	}
	t.Logf("CRASH_SEED=%d", n)
	return rand.New(rand.NewPCG(n, n))
}

// kill ends a process of the node as a crash does.
func kill(t *testing.T, p cluster.Process) {
	t.Helper()
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatalf("kill process %v: %v", p, err)
	}
}

// containers lists all running containers by pod and name, with what changes
// when one is restarted.
func containers(t *testing.T, k *cluster.Kubectl) map[string]string {
	t.Helper()
	pods, err := k.Pods(t.Context(), "-A")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			started := "not running"
			if c.State.Running != nil {
				started = c.State.Running.StartedAt
			}
			out[fmt.Sprintf("%s/%s/%s %s", p.Metadata.Namespace, p.Metadata.Name, c.Name, p.Metadata.UID)] = fmt.Sprintf("%s, restarts %d, since %s", c.ContainerID, c.RestartCount, started)
		}
	}
	return out
}

// pause waits for a random part of maxPause.
func pause(random *rand.Rand) { <-time.After(time.Duration(random.Int64N(int64(maxPause)))) }
