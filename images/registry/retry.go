package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxWait bounds the time between two attempts, also what a registry asks for.
const maxWait = 30 * time.Second

// StatusError is an answer that is no success.
type StatusError struct {
	// Host answered, Code is the HTTP status, Text the beginning of what it said.
	Host string
	Code int
	Text string
	// after is how long the host wants to be left alone.
	after time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answers %d %s", e.Host, e.Code, http.StatusText(e.Code))
	switch e.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += ": give credentials for it in the docker configuration (docker login, or config.json)"
	case http.StatusTooManyRequests:
		text += ": it limits how much is read; try later, log in, or use a mirror"
	}
	if e.Text != "" {
		text += " (" + e.Text + ")"
	}
	return text
}

// Is makes what a registry does not have an fs.ErrNotExist.
func (e *StatusError) Is(target error) bool {
	return target == fs.ErrNotExist && e.Code == http.StatusNotFound
}

// worthAgain reports whether another attempt may go better, and how long the
// other side wants to be left alone before.
func worthAgain(err error) (again bool, after time.Duration) {
	var status *StatusError
	var refused *transport.Error
	var wrong *contentError
	var unknown *net.DNSError
	switch {
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return false, 0 // a name that nobody has
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && !isTimeout(err), errors.As(err, &wrong):
		return false, 0
	case errors.As(err, &status):
		return temporary(status.Code), status.after
	case errors.As(err, &refused): // while a token was fetched
		return temporary(refused.StatusCode), 0
	}
	return true, 0 // the network
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func temporary(code int) bool {
	return code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500 && code != http.StatusNotImplemented
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// pause waits before attempt number n, counted from 1.
func (c *Client) pause(ctx context.Context, n int, after time.Duration) error {
	wait := min(max(c.cfg.Wait<<min(n-1, 10), after), maxWait)
	wait += rand.N(wait/4 + 1)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
