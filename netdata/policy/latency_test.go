package policy

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is measured ends with the rows in the tables, not with a try to write them.
func TestLatencyOfAPolicy(t *testing.T) {
	c := newControllerTest(t, localPod("a"), localPod("b"), denyIngress("before", "b"))
	var times atomic.Int64
	longest := make(chan time.Duration, 16)
	c.ObserveLatency(func(took time.Duration) { times.Add(1); longest <- took })
	c.run()
	c.connect(ref("a"), "10.0.0.2")
	if n := times.Load(); n != 0 {
		t.Fatalf("%d times were taken of what was there before the agent", n)
	}

	c.table.Lock(func(f *fakeTable) { f.fail = errors.New("no memory") })
	created := time.Now()
	create(t, c.client, denyIngress("deny", "a"))
	c.eventually("the problem to be told", func() error {
		if c.Status().Problems["tables"] == "" {
			return errors.New("there is none")
		}
		return nil
	})
	if n := times.Load(); n != 0 {
		t.Fatalf("%d times were taken of a policy that is not in force", n)
	}
	failed := time.Since(created)
	c.table.Lock(func(f *fakeTable) { f.fail = nil })
	if took := <-longest; took > time.Since(created) || took <= 0 {
		t.Errorf("took %s, of which it failed for %s; since it was created there were %s", took, failed, time.Since(created))
	}

	err := c.client.NetworkingV1().NetworkPolicies("x").Delete(t.Context(), "deny", metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.eventually("the deletion to be measured as well", func() error {
		if n := times.Load(); n != 2 {
			return fmt.Errorf("%d times were taken", n)
		}
		return nil
	})
}
