package registry

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// burst is how much is read at once; it bounds how uneven the rate is.
const burst = 64 << 10

func newLimiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), burst)
}

// limited reads no faster than the limiter, which several readers share.
type limited struct {
	ctx     context.Context
	from    io.Reader
	limiter *rate.Limiter
}

func (l *limited) Read(p []byte) (int, error) {
	if l.limiter == nil {
		return l.from.Read(p)
	}
	n, err := l.from.Read(p[:min(len(p), burst)])
	if wait := l.limiter.WaitN(l.ctx, n); wait != nil && err == nil {
		err = wait
	}
	return n, err
}
