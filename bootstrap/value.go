package bootstrap

import (
	"context"
	"sync"
)

// value is set once while the control plane runs, and waited for by what needs
// it.
type value[T any] struct {
	mu    sync.Mutex
	known chan struct{}
	v     T
}

func (b *value[T]) channel() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = make(chan struct{})
	}
	return b.known
}

// set makes the value known. Setting it again replaces it.
func (b *value[T]) set(v T) {
	ch := b.channel()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.v = v
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// get returns the value and whether it is set.
func (b *value[T]) get() (T, bool) {
	ch := b.channel()
	select {
	case <-ch:
	default:
		var zero T
		return zero, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.v, true
}

// wait blocks until the value is set or ctx ends.
func (b *value[T]) wait(ctx context.Context) (T, error) {
	select {
	case <-b.channel():
		v, _ := b.get()
		return v, nil
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}
