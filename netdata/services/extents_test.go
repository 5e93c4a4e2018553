package services

import (
	"testing"
	"time"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestExtentsRestBeforeReuse(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	e := newExtents(8, nil, c.now)
	a, err := e.take(8)
	if err != nil {
		t.Fatal(err)
	}
	e.put(a)
	if _, err := e.take(1); err == nil {
		t.Error("an extent was used again at once")
	}
	c.t = c.t.Add(reuseAfter + time.Second)
	if _, err := e.take(8); err != nil {
		t.Errorf("a rested extent was not used again: %v", err)
	}
}

func TestExtentsMerge(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	e := newExtents(9, nil, c.now)
	var taken []extent
	for range 3 {
		x, err := e.take(3)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, x)
	}
	for _, i := range []int{0, 2, 1} {
		e.put(taken[i])
	}
	c.t = c.t.Add(reuseAfter + time.Second)
	if _, err := e.take(9); err != nil {
		t.Errorf("three adjacent extents did not become one: %v", err)
	}
}

func TestExtentsAvoidWhatIsInUse(t *testing.T) {
	e := newExtents(10, []extent{{6, 2}, {2, 2}}, time.Now)
	for _, want := range []uint32{0, 4, 8} {
		x, err := e.take(2)
		if err != nil || x.base != want {
			t.Errorf("got %v (%v), want base %d", x, err, want)
		}
	}
	if _, err := e.take(1); err == nil {
		t.Error("took a slot that is in use")
	}
}
