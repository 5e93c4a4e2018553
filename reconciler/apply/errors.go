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

// quotedValue matches where the server's words about an object quote a value of
// it.
var quotedValue = regexp.MustCompile(`(Invalid value:|got) ("(?:[^"\\]|\\.)*"|&value\.valueUnstructured\{[^}]*\})`)

// isImmutable reports whether the server refused to change a field that cannot be
// changed.
func isImmutable(err error) bool {
	return err != nil && (apierrors.IsInvalid(err) || apierrors.IsForbidden(err)) && immutable.MatchString(err.Error())
}

// failureOf says what is wrong with an object in words an operator can use.
func failureOf(id ID, err error) *Failure {
	f := &Failure{ID: id, Problem: strings.TrimSpace(err.Error())}
	if id.Kind == "Secret" && id.Group == "" {
		f.Problem = quotedValue.ReplaceAllString(f.Problem, "$1 ***")
	}
	switch {
	case isImmutable(err):
		f.Remedy = "this field cannot be changed on an existing object: give the object another name in Git, delete it (kubectl delete) and it is created anew, or annotate it in Git with " + ForceAnnotation + ": " + enabled + ", which lets bothy delete it"
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		f.Remedy = "correct the object in Git"
	case apierrors.IsNotFound(err) && id.Namespace != "":
		f.Remedy = fmt.Sprintf("add the namespace %q to Git", id.Namespace)
	case apierrors.IsForbidden(err):
		f.Remedy = "an admission rule or the permissions of the service account forbid it: correct the object, or these"
	}
	return f
}

// failureOfKind says that the server does not serve a kind.
func failureOfKind(id ID) *Failure {
	return &Failure{
		ID: id, Problem: fmt.Sprintf("the API server does not know %s of %s", id.Kind, id.gvk().GroupVersion()),
		Remedy: "add its CustomResourceDefinition to Git, or correct apiVersion and kind",
	}
}
