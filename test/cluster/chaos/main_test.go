// Package chaos disturbs the way from a push to the cluster: the agent is killed
// at random moments, and the Git server goes away, stalls and lies. What was
// accepted stays accepted, nothing that Git wants is ever deleted, the cluster
// never goes back to an older commit, and it always arrives at the newest.
//
// CHAOS_RECONCILES says how many pushes the killing lasts (30 unless told),
// CHAOS_SEED repeats a run.
package chaos

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

const (
	patience = 90 * time.Second
	// interval of fetching; the shortest that nodes accept is not needed, since
	// pushes are announced with bothy reconcile too.
	interval = 2 * time.Second
)

// number reads a setting of the environment.
func number(t *testing.T, name string, unset uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return unset
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// seed makes a run repeatable, as far as the machine's timing allows.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := number(t, "CHAOS_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CHAOS_SEED=%d", n)
	return rand.New(rand.NewPCG(n, n))
}

// pause waits for a random part of most.
func pause(random *rand.Rand, most time.Duration) {
	<-time.After(time.Duration(random.Int64N(int64(most))))
}
