package objects

import (
	"github.com/fluxcd/pkg/apis/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Finalizer is Flux's, of all its kinds.
const Finalizer = "finalizers.fluxcd.io"

// Requested tells whether somebody asked for a reconcile that was not handled
// yet, and returns the request.
func Requested(object client.Object, handled string) (string, bool) {
	token, ok := meta.ReconcileAnnotationValue(object.GetAnnotations())
	return token, ok && token != handled
}
