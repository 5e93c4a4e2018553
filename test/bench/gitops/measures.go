package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// patience is the most that any one thing may take.
const patience = 10 * time.Minute

func artifactRevision(u *unstructured.Unstructured) string {
	revision, _, _ := unstructured.NestedString(u.Object, "status", "artifact", "revision")
	return revision
}

// untilReady creates Kustomizations and measures until the last is Ready.
func (c *comparison) untilReady(ctx context.Context, s *side, n int, revision string) error {
	start := time.Now()
	if err := s.create(ctx, n, never); err != nil {
		return err
	}
	last, err := lastOf(ctx, s.kustomizations, s.kustomizations.expect(s.names(), readyAt(revision)))
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	took := last.Sub(start)
	progress("%-6s %3d Kustomizations created, all Ready after %.2f s", s.name, n, took.Seconds())
	if c.options.measure("ready") {
		c.report.add("ready", s.name, n, took)
	}
	return nil
}

func lastOf(ctx context.Context, o *observer, e *expectation) (time.Time, error) {
	times, err := o.wait(ctx, e, patience)
	var last time.Time
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last, err
}

// fewest pushes make a median worth printing.
const fewest = 5

// pushes measures how long one change takes. Both sides get the same commits,
// one after the other: a side does not look before it is told, and the next is
// told when the one before has come to rest.
func (c *comparison) pushes(ctx context.Context, n int) error {
	spent := map[string]time.Duration{}
	for round := range c.options.pushes {
		i := rand.IntN(n)
		value := c.value()
		if err := c.repo.setValue(i, value); err != nil {
			return err
		}
		revision, err := c.change(ctx)
		if err != nil {
			return err
		}
		for _, s := range c.turn(round) {
			if spent[s.name] > c.options.budget && round >= fewest {
				continue
			}
			start := time.Now()
			e := s.configs.expect([]string{appName(i)}, shows(value))
			if err := s.poke(ctx); err != nil {
				return err
			}
			at, err := lastOf(ctx, s.configs, e)
			if err != nil {
				return fmt.Errorf("%s: one change pushed: %w", s.name, err)
			}
			took := at.Sub(start)
			c.report.add("push", s.name, n, took)
			progress("%-6s %3d Kustomizations, one change applied after %.3f s", s.name, n, took.Seconds())
			if err := s.settled(ctx, revision); err != nil {
				return err
			}
			spent[s.name] += time.Since(start)
		}
	}
	return nil
}

// changesOfAll measures how long a push takes that changes everything.
func (c *comparison) changesOfAll(ctx context.Context, n int) error {
	for round := range c.options.rounds {
		value := c.value()
		for i := range n {
			if err := c.repo.setValue(i, value); err != nil {
				return err
			}
		}
		revision, err := c.change(ctx)
		if err != nil {
			return err
		}
		for _, s := range c.turn(round) {
			start := time.Now()
			applied := s.configs.expect(s.names(), shows(value))
			readied := s.kustomizations.expect(s.names(), readyAt(revision))
			if err := s.poke(ctx); err != nil {
				return err
			}
			if _, err := lastOf(ctx, s.configs, applied); err != nil {
				return fmt.Errorf("%s: everything changed: %w", s.name, err)
			}
			at, err := lastOf(ctx, s.kustomizations, readied)
			if err != nil {
				return fmt.Errorf("%s: everything changed: %w", s.name, err)
			}
			took := at.Sub(start)
			c.report.add("all", s.name, n, took)
			progress("%-6s %3d Kustomizations, all changed and Ready after %.2f s", s.name, n, took.Seconds())
		}
	}
	return nil
}

// drifts measures how long changes by hand last. Ours one after the other;
// Flux's, which last until the next interval of their Kustomization, each at a
// random moment of an interval and all in parallel.
func (c *comparison) drifts(ctx context.Context, s *side, interval time.Duration) error {
	n := min(c.options.drifts, s.size)
	took := make([]time.Duration, n)
	one := func(i int) (err error) {
		took[i], err = c.drift(ctx, s, appName(i))
		return err
	}
	var err error
	if s.name == flux {
		err = together(n, func(i int) error {
			if err := wait(ctx, rand.N(interval)); err != nil {
				return err
			}
			return one(i)
		})
	} else {
		for i := 0; i < n && err == nil; i++ {
			err = one(i)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: drift: %w", s.name, err)
	}
	for _, d := range took {
		c.report.add("drift", s.name, s.size, d)
	}
	progress("%-6s %d objects changed by hand are as before", s.name, n)
	return nil
}

// drift changes one object and returns how long it took until it was as before.
func (c *comparison) drift(ctx context.Context, s *side, name string) (time.Duration, error) {
	before, ok := s.configs.get(name)
	if !ok {
		return 0, fmt.Errorf("ConfigMap %s is not there", name)
	}
	value, _, _ := unstructured.NestedString(before.Object, "data", "value")
	old := before.GetResourceVersion()
	e := s.configs.expect([]string{name}, func(u *unstructured.Unstructured) bool {
		return u.GetResourceVersion() != old && shows(value)(u)
	})
	start := time.Now()
	if _, err := c.client.Resource(configMaps).Namespace(s.target).Patch(ctx, name, types.MergePatchType,
		[]byte(`{"data": {"value": "by hand"}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		return 0, err
	}
	at, err := lastOf(ctx, s.configs, e)
	return at.Sub(start), err
}
