package mirror

import (
	"errors"
	"fmt"
)

// ErrCorrupt says that the mirror on disk cannot be trusted to be whole. It is
// healed by [Mirror.Reset] and a new fetch.
var ErrCorrupt = errors.New("the mirror is damaged")

// ErrMissing says that an object is not in the mirror.
var ErrMissing = errors.New("object is not in the mirror")

// ErrNotFetched says that a file of an older commit was left out when the
// repository was cloned, and cannot be fetched now. It is an ErrMissing, but the
// mirror is whole.
var ErrNotFetched = fmt.Errorf("%w, which was not needed so far, and cannot be fetched now", ErrMissing)

// ErrTooLarge says that a fetch or an object is over its limit.
var ErrTooLarge = errors.New("too large")

// ErrStalled says that a server kept a connection open and sent next to
// nothing.
var ErrStalled = errors.New("the server sends next to nothing")

// ErrNoBundle says that there is no bundle file now, as when the medium that
// carries it is not plugged in.
var ErrNoBundle = errors.New("no bundle is there")

// FetchError says why the repository could not be read.
type FetchError struct {
	URL string
	// Problem completes "repository URL ...".
	Problem string
	Remedy  string
	Err     error
}

func (e *FetchError) Error() string {
	text := fmt.Sprintf("repository %s %s", e.URL, e.Problem)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns the transport's error.
func (e *FetchError) Unwrap() error { return e.Err }
