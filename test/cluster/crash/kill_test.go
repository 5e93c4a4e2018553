package crash

import (
	"fmt"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// Ten times each, at random moments: the process dies as if its memory had been
// taken away. Every other time it is not given the time to recover first.
func TestKilledProcessesAreNotMissed(t *testing.T) {
	repo := cluster.NewRepo(t, false, nil)
	node := cluster.NodeFor(t, repo)
	up := node.Up(t)
	random := seed(t)
	boot := node.Status(t).Node.BootID

	for _, verb := range []string{"kube", "agent"} {
		t.Run("bothy "+verb, func(t *testing.T) {
			l := startLoad(t, node, up.NodeIP)
			before := containers(t, l.kube)
			other := map[string]string{"kube": "agent", "agent": "kube"}[verb]
			bystander := node.MustProcess(t, other)

			for i := range kills {
				pause(random)
				victim := running(t, node, verb, 0)
				kill(t, victim.Process)
				start := time.Now()
				successor := running(t, node, verb, victim.PID)
				if i%2 == 1 {
					node.WaitServing(t, patience)
					t.Logf("kill %d of %s: process again after %.2f s, all Ready after %.2f s", i+1, verb, successor.since.Sub(start).Seconds(), time.Since(start).Seconds())
					if err := l.ledger.lost(t.Context()); err != nil {
						t.Errorf("after kill %d: %v", i+1, err)
					}
				}
			}
			node.WaitServing(t, patience)
			if now := node.MustProcess(t, other); now.PID != bystander.PID {
				t.Errorf("bothy %s was killed, but bothy %s is another process too: %v became %v", verb, other, bystander, now)
			}
			after := containers(t, l.kube)
			for name, was := range before {
				if after[name] != was {
					t.Errorf("container %s: %s became %q", name, was, after[name])
				}
			}
			l.check(t)
			l.kube.Run(t, "delete", "pod/server", "pod/client", "service/server", "configmap/ledger")
		})
	}
	if now := node.Status(t).Node.BootID; now != boot {
		t.Errorf("the whole node was started anew: boot %s became %s", boot, now)
	}
}

type found struct {
	cluster.Process
	since time.Time
}

// running waits for the process, other than the one that is known to be dead.
func running(t *testing.T, node *cluster.Node, verb string, not int) found {
	t.Helper()
	var p cluster.Process
	cluster.Eventually(t, patience, "bothy "+verb+" to run", func() error {
		var err error
		if p, err = node.Process(verb); err == nil && p.PID == not {
			err = fmt.Errorf("process %v is still there", p)
		}
		return err
	})
	return found{p, time.Now()}
}

// Both at once, and process 1 alone is left to bring everything back.
func TestKillingBothProcessesAtOnce(t *testing.T) {
	repo := cluster.NewRepo(t, false, nil)
	node := cluster.NodeFor(t, repo)
	up := node.Up(t)
	l := startLoad(t, node, up.NodeIP)
	before := containers(t, l.kube)
	agent, kube := node.MustProcess(t, "agent"), node.MustProcess(t, "kube")
	kill(t, agent)
	kill(t, kube)
	running(t, node, "agent", agent.PID)
	running(t, node, "kube", kube.PID)
	node.WaitServing(t, patience)
	for name, was := range before {
		if now := containers(t, l.kube)[name]; now != was {
			t.Errorf("container %s: %s became %q", name, was, now)
		}
	}
	l.check(t)
}
