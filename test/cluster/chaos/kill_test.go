package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

const (
	// reconciles unless told otherwise.
	reconciles = 30
	// A killed agent that did not live long is started again after up to five
	// seconds, so several nodes are tormented at a time.
	reconcilesPerNode = 50
	mostNodes         = 4 // as many as go test runs at a time in the Makefile

	// afterPush covers fetching, accepting and applying, afterStart the same
	// work taken up again by the next agent.
	afterPush  = 400 * time.Millisecond
	afterStart = 1500 * time.Millisecond

	// mostBehind is how many commits in a row may go by without one that is
	// applied whole. What they leave behind is deleted in one go later, and more
	// than half of the objects would rightly be held back.
	mostBehind = 6
)

// The agent dies as if its memory had been taken away, at random moments of many
// reconciles: some after a push, some while the successor still makes up for the
// one before, with another push in between.
func TestKilledAgentAlwaysArrives(t *testing.T) {
	cluster.Require(t)
	random := seed(t)
	total := int(number(t, "CHAOS_RECONCILES", reconciles))
	nodes := min(mostNodes, max(2, (total+reconcilesPerNode-1)/reconcilesPerNode))
	for i := range nodes {
		share := total / nodes
		if i < total%nodes {
			share++
		}
		own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		t.Run(fmt.Sprintf("node %d of %d", i+1, nodes), func(t *testing.T) {
			t.Parallel()
			torment(t, own, share)
		})
	}
}

func torment(t *testing.T, random *rand.Rand, rounds int) {
	t.Helper()
	s := newSite(t, nil)
	w := watch(t, s)
	kills, dead := 0, 0
	strike := func(within time.Duration) {
		victim := alive(t, s.node, dead)
		pause(random, within)
		kill(t, victim)
		dead = victim.PID
		kills++
	}
	behind := 0
	for range rounds {
		alive(t, s.node, dead)
		s.push(t)
		told := s.announce(t)
		strike(afterPush)
		told()
		chance := random.IntN(8)
		if chance < 2 {
			strike(afterStart)
		}
		if behind++; chance > 4 || behind == mostBehind {
			s.arrives(t)
			behind = 0
		}
	}
	s.arrives(t)
	s.node.WaitServing(t, patience)
	w.check(t)
	s.remembered(t)
	t.Logf("%d reconciles, %d kills", rounds, kills)
}

// remembered fails the test if an agent, but for the first, took a commit before
// it went on with the one that was accepted before: then it had forgotten that.
func (s *site) remembered(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.node.State, "logs", "agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	starts, resumed := 0, true
	for line := range bytes.Lines(data) {
		var entry struct{ Msg, Reason string }
		if err := json.Unmarshal(line, &entry); err != nil {
			continue // the last words of an agent that was killed
		}
		switch {
		case entry.Msg == "agent starts":
			starts++
			resumed = starts == 1
		case entry.Reason == "Resumed":
			resumed = true
		case entry.Reason == "Accepted" && !resumed:
			t.Errorf("agent %d began as if nothing had been accepted: %s", starts, line)
		}
	}
	if starts < 2 {
		t.Errorf("%d agents are in the log, which was expected to have all", starts)
	}
}

// alive waits for the agent, other than the one that is known to be dead.
func alive(t *testing.T, node *cluster.Node, not int) cluster.Process {
	t.Helper()
	var p cluster.Process
	cluster.Eventually(t, patience, "the agent to run", func() error {
		var err error
		if p, err = node.Process("agent"); err == nil && p.PID == not {
			err = fmt.Errorf("process %v is still there", p)
		}
		return err
	})
	return p
}

func kill(t *testing.T, p cluster.Process) {
	t.Helper()
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatalf("kill process %v: %v", p, err)
	}
}
