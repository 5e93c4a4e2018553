package acceptance

// cache keeps what was used lately, up to about twice its limit, so that memory
// does not grow with the history. It has two generations: when the young one is
// full it becomes the old one, and what nobody asks for again goes with it.
type cache[V any] struct {
	limit      int // of the young generation, in weight
	weight     int
	young, old map[string]V
}

func newCache[V any](limit int) *cache[V] {
	return &cache[V]{limit: limit, young: map[string]V{}}
}

func (c *cache[V]) get(key string) (V, bool) {
	v, ok := c.young[key]
	if ok {
		return v, true
	}
	v, ok = c.old[key]
	return v, ok
}

func (c *cache[V]) put(key string, v V, weight int) {
	if c.weight += weight; c.weight > c.limit {
		c.old, c.young, c.weight = c.young, map[string]V{}, weight
	}
	c.young[key] = v
}
