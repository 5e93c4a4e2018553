package apply

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Failure is what is wrong with one object. It is an error.
type Failure struct {
	ID      ID     `json:"object"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy,omitempty"`
}

func (f *Failure) Error() string {
	text := f.ID.String() + ": " + f.Problem
	if f.Remedy != "" {
		text += "; " + f.Remedy
	}
	return text
}

// ErrUnavailable says that the API server does not answer (yet).
var ErrUnavailable = errors.New("the API server does not answer")

// unavailable wraps err with ErrUnavailable if no API server judged the
// request: it is not there, is starting, or does not know us yet.
func unavailable(err error) error {
	var transport *url.Error
	var network net.Error
	switch {
	case err == nil, errors.Is(err, ErrUnavailable):
		return err
	case apierrors.IsServiceUnavailable(err), apierrors.IsTooManyRequests(err), apierrors.IsUnauthorized(err),
		apierrors.IsTimeout(err), apierrors.IsServerTimeout(err),
		errors.As(err, &transport), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// immutable matches the wording of built-in validation and of CEL rules.
var immutable = regexp.MustCompile(`(?i)is immutable|immutable field|may not (be changed|change) once set|updates to .* are forbidden|forbidden: updates to`)

// failureOf says what is wrong with an object in words an operator can use.
func failureOf(id ID, err error) *Failure {
	f := &Failure{ID: id, Problem: strings.TrimSpace(err.Error())}
	switch {
	case apierrors.IsInvalid(err) && immutable.MatchString(err.Error()):
		f.Remedy = "this field cannot be changed on an existing object: give the object another name in Git, or delete it (kubectl delete) and it is created anew"
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		f.Remedy = "correct the object in Git"
	case apierrors.IsNotFound(err) && id.Namespace != "":
		f.Remedy = fmt.Sprintf("add the namespace %q to Git", id.Namespace)
	case apierrors.IsForbidden(err):
		f.Remedy = "an admission rule forbids it: correct the object, or the rule"
	}
	return f
}
