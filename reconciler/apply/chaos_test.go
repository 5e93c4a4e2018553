package apply_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/apply"
)

// chaos makes random sequences of commits, crashes, outages and edits by others,
// and checks the promises after each of them.
type chaos struct {
	*watched
	rng    *rand.Rand
	wanted map[string]string // values by name
	log    []string
}

func (c *chaos) do(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

func (c *chaos) path(name string) string { return "/api/v1/namespaces/default/configmaps/" + name }

func (c *chaos) name() string { return fmt.Sprintf("o%d", c.rng.IntN(12)) }

// commit replaces the wanted set.
func (c *chaos) commit() {
	c.wanted = map[string]string{}
	for range c.rng.IntN(10) {
		c.wanted[c.name()] = fmt.Sprint(c.rng.IntN(3))
	}
	c.do("commit %v", c.wanted)
	c.reset()
}

func (c *chaos) reset() {
	var docs []string
	for name, value := range c.wanted {
		docs = append(docs, configMap(name, value))
	}
	c.set(fmt.Sprint(c.rng.Int()), docs...)
}

// crash makes some request of a pass the last one: the process dies, and the
// next one knows only what is in the cluster.
func (c *chaos) crash() {
	left := c.rng.IntN(6)
	c.do("crash after %d writes", left)
	ctx, cancel := context.WithCancel(context.Background())
	c.Refuse(func(string, string, map[string]any) *metav1.Status {
		if left--; left < 0 {
			cancel()
			return &metav1.Status{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "gone"}
		}
		return nil
	})
	pass, err := c.engine.Sync(ctx)
	cancel()
	if err == nil && pass == nil {
		c.t.Fatal("no pass and no error")
	}
	c.Refuse(nil)
	c.restart()
	c.reset()
}

// meddle changes or deletes an object as somebody else.
func (c *chaos) meddle() {
	name := c.name()
	if c.Get(c.path(name)) == nil {
		return
	}
	switch c.rng.IntN(4) {
	case 0:
		c.do("somebody deletes %s", name)
		c.Delete(c.path(name))
	case 1:
		c.do("somebody removes the labels of %s", name)
		c.Edit(c.path(name), "hand", func(u *unstructured.Unstructured) { u.SetLabels(nil) })
	default:
		c.do("somebody edits %s", name)
		c.Edit(c.path(name), "hand", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "foreign"} })
	}
}

func (c *chaos) outage() {
	c.do("outage")
	c.Down(true)
	c.meddle()
	if c.rng.IntN(2) == 0 {
		c.Compact()
	}
	if _, err := c.engine.Sync(context.Background()); err != nil && !errors.Is(err, apply.ErrUnavailable) {
		c.t.Fatalf("during an outage: %v", err)
	}
	c.Down(false)
}

// converged compares the cluster with the wanted set. An object whose label
// somebody removed is not ours to delete.
func (c *chaos) converged() error {
	for name, value := range c.wanted {
		o := c.Get(c.path(name))
		if o == nil {
			return fmt.Errorf("%s is missing", name)
		}
		if data, _ := o["data"].(map[string]any); data["k"] != value {
			return fmt.Errorf("%s is %v, want %s", name, data["k"], value)
		}
	}
	for _, path := range c.Paths() {
		name := path[strings.LastIndex(path, "/")+1:]
		u := unstructured.Unstructured{Object: c.Get(path)}
		if _, ok := c.wanted[name]; !ok && u.GetLabels()[apply.InventoryLabel] != "" {
			return fmt.Errorf("%s is an orphan", name)
		}
	}
	return nil
}

// never deletes what is wanted, whatever happens.
func (c *chaos) watchDeletions() {
	c.Refuse(func(method, path string, _ map[string]any) *metav1.Status {
		name := path[strings.LastIndex(path, "/")+1:]
		if _, ok := c.wanted[name]; ok && method == "DELETE" {
			c.t.Errorf("deleted %s, which is wanted", name)
		}
		return nil
	})
}

func TestChaosConverges(t *testing.T) {
	runs := 15
	if testing.Short() {
		runs = 5
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := &chaos{watched: newWatched(t), rng: rand.New(rand.NewPCG(uint64(seed), 1))}
			c.allow = true
			c.commit()
			for range 25 {
				c.step()
			}
			c.do("quiet")
			c.watchDeletions()
			c.awaitConvergence()
		})
	}
}

func (c *chaos) step() {
	switch c.rng.IntN(6) {
	case 0:
		c.commit()
	case 1:
		c.crash()
	case 2:
		c.outage()
	case 3, 4:
		c.meddle()
	default:
		c.do("sync")
		_ = c.sync()
	}
}

func (c *chaos) awaitConvergence() {
	deadline := time.After(20 * time.Second)
	for {
		pass, err := c.engine.Sync(context.Background())
		if err != nil && !errors.Is(err, apply.ErrUnavailable) {
			c.t.Fatal(err)
		}
		why := c.converged()
		if why == nil && err == nil && len(pass.Failures) == 0 {
			return
		}
		select {
		case <-c.wake:
		case <-deadline:
			c.t.Fatalf("does not converge: %v; pass %+v; after:\n%s", why, pass, strings.Join(c.log, "\n"))
		}
	}
}
