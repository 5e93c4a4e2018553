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

// ErrTooLarge says that a fetch or an object is over its limit.
var ErrTooLarge = errors.New("too large")

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
