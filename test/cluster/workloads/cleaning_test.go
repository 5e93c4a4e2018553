package workloads

import (
	"context"
	"testing"
)

// cleaning is a test whose context has not ended, for use in t.Cleanup.
type cleaning struct{ testing.TB }

func (cleaning) Context() context.Context { return context.Background() }
