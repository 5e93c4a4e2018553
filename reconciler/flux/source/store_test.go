package source

import (
	"context"
	"testing"
	"testing/synctest"
)

// A controller that is started again subscribes again; the one before it must not stay.
func TestSubscribersGoWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		told := map[string]int{}
		ctx, cancel := context.WithCancel(t.Context())
		s.Subscribe(ctx, func(Key) { told["first"]++ })
		s.Subscribe(t.Context(), func(Key) { told["second"]++ })
		s.Set(BootKey, &Artifact{Revision: "1"})
		if s.Get(BootKey) == nil || told["first"] != 1 || told["second"] != 1 {
			t.Fatalf("told %v", told)
		}
		cancel()
		synctest.Wait()
		s.Set(BootKey, nil)
		if s.Get(BootKey) != nil || told["first"] != 1 || told["second"] != 2 {
			t.Errorf("told %v after the first has gone", told)
		}
		if len(s.subscribers) != 1 {
			t.Errorf("%d subscribers are kept", len(s.subscribers))
		}
	})
}
