package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// maxCall bounds the body of a call, in bytes.
	maxCall = 4 << 20
	// callTimeout bounds what a call sets off.
	callTimeout = 15 * time.Second
)

// Hooks answers the calls of Receivers: POST /hook/<digest>. It is an
// http.Handler that can be mounted before the controllers run and outlives
// them; while they do not run it answers 503.
type Hooks struct {
	mu     sync.RWMutex
	caller *caller
}

// NewHooks returns a handler that has no controllers yet.
func NewHooks() *Hooks { return &Hooks{} }

func (h *Hooks) serve(c *caller) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.caller = c
}

// ServeHTTP implements http.Handler.
func (h *Hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.RLock()
	c := h.caller
	h.mu.RUnlock()
	switch {
	case r.Method != http.MethodPost:
		http.Error(w, "a receiver is called with POST", http.StatusMethodNotAllowed)
	case c == nil:
		w.Header().Set("Retry-After", "10")
		http.Error(w, "the receivers are not ready yet", http.StatusServiceUnavailable)
	default:
		c.answer(w, r)
	}
}

// caller does what calls ask for.
type caller struct {
	client        client.Client
	direct        client.Reader // reads metadata of objects that are not cached
	log           *slog.Logger
	sameNamespace bool
	now           func() time.Time
}

func (c *caller) answer(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	receiver, err := c.find(ctx, r.URL.Path)
	switch {
	case err != nil:
		c.log.Error("receivers cannot be listed", "err", err)
		http.Error(w, "", http.StatusInternalServerError)
		return
	case receiver == nil:
		http.NotFound(w, r)
		return
	case receiver.Spec.Suspend, !conditions.IsReady(receiver):
		http.Error(w, "the receiver is suspended or not ready", http.StatusServiceUnavailable)
		return
	}
	log := c.log.With("receiver", receiver.Namespace+"/"+receiver.Name)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		http.Error(w, "the call did not arrive whole", tooLargeOr(err, http.StatusBadRequest))
		return
	}
	if err := c.believe(ctx, receiver, r.Header, body); err != nil {
		log.Warn("a call of a receiver was not believed", "err", err)
		http.Error(w, "the call was not believed", http.StatusBadRequest)
		return
	}
	asked, err := c.ask(ctx, receiver, r.Header, body)
	if err != nil {
		log.Error("a receiver could not ask for all reconciles", "asked", asked, "err", err)
		http.Error(w, "not all resources could be asked to reconcile", http.StatusInternalServerError)
		return
	}
	log.Info("receiver", "asked", asked)
}

func tooLargeOr(err error, code int) int {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	return code
}

// find returns the receiver of a path, or nil.
func (c *caller) find(ctx context.Context, path string) (*notificationv1.Receiver, error) {
	var found notificationv1.ReceiverList
	if err := c.client.List(ctx, &found, client.MatchingFields{pathIndex: path}); err != nil {
		return nil, err
	}
	if len(found.Items) == 0 {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return &found.Items[0], nil
}

func (c *caller) believe(ctx context.Context, r *notificationv1.Receiver, header http.Header, body []byte) error {
	check, ok := genuineChecks()[r.Spec.Type]
	if !ok || r.Spec.SecretRef == nil {
		return fmt.Errorf("receiver type %q is not supported", r.Spec.Type)
	}
	token, err := receiverToken(ctx, c.client, r)
	if err != nil {
		return err
	}
	event, err := check(header, []byte(token), body)
	if err != nil {
		return err
	}
	if !allowed(r, event) {
		return fmt.Errorf("event %q is not among spec.events", event)
	}
	return nil
}

// ask annotates the receiver's resources, as many as can be, and returns how
// many that were.
func (c *caller) ask(ctx context.Context, r *notificationv1.Receiver, header http.Header, body []byte) (asked int, err error) {
	request, err := requestVariable(r, header, body)
	if err != nil {
		return 0, err
	}
	var failures []error
	for i, resource := range r.Spec.Resources {
		n, err := c.askOne(ctx, r, resource, request)
		asked += n
		if err != nil {
			failures = append(failures, fmt.Errorf("spec.resources[%d] (%s %s): %w", i, resource.Kind, resource.Name, err))
		}
	}
	return asked, errors.Join(failures...)
}

// requestVariable is the body for the filters, if there are any.
func requestVariable(r *notificationv1.Receiver, header http.Header, body []byte) (map[string]any, error) {
	filtered := r.Spec.ResourceFilter != ""
	for _, resource := range r.Spec.Resources {
		filtered = filtered || resource.Filter != ""
	}
	request := map[string]any{}
	if kind, _, err := mime.ParseMediaType(header.Get("Content-Type")); !filtered || err != nil || kind != "application/json" {
		return request, nil //nolint:nilerr // a body that is not JSON is not shown to the filters
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, errors.New("the body is not a JSON object, which the resource filters need")
	}
	return request, nil
}

func (c *caller) askOne(ctx context.Context, r *notificationv1.Receiver, resource notificationv1.ReceiverResource, request map[string]any) (asked int, err error) {
	objects, err := c.resources(ctx, r, resource, r.Spec.ResourceFilter != "" || resource.Filter != "")
	if err != nil {
		return 0, err
	}
	for i := range objects {
		o := &objects[i]
		wanted, err := passes(ctx, o, request, r.Spec.ResourceFilter, resource.Filter)
		if err != nil {
			return asked, err
		}
		if !wanted {
			continue
		}
		if err := c.annotate(ctx, o); err != nil {
			return asked, err
		}
		asked++
	}
	return asked, nil
}

// resources returns what a reference names. The metadata of a single object is
// read only if filters need it.
func (c *caller) resources(ctx context.Context, r *notificationv1.Receiver, resource notificationv1.ReceiverResource, whole bool) ([]metav1.PartialObjectMetadata, error) {
	namespace := resource.Namespace
	switch {
	case namespace == "":
		namespace = r.Namespace
	case namespace != r.Namespace && c.sameNamespace:
		return nil, errors.New("references to other namespaces are not allowed here")
	}
	gvk, err := kindOf(resource.CrossNamespaceObjectReference, c.client.Scheme())
	if err != nil {
		return nil, err
	}
	if resource.Name == "*" {
		var found metav1.PartialObjectMetadataList
		found.SetGroupVersionKind(gvk)
		err := c.direct.List(ctx, &found, client.InNamespace(namespace), client.MatchingLabels(resource.MatchLabels))
		for i := range found.Items {
			found.Items[i].SetGroupVersionKind(gvk)
		}
		return found.Items, err
	}
	one := metav1.PartialObjectMetadata{}
	one.SetGroupVersionKind(gvk)
	one.Namespace, one.Name = namespace, resource.Name
	if whole {
		if err := c.direct.Get(ctx, client.ObjectKeyFromObject(&one), &one); err != nil {
			return nil, err
		}
		one.SetGroupVersionKind(gvk)
	}
	return []metav1.PartialObjectMetadata{one}, nil
}

// kindOf completes a kind whose apiVersion was left out, as Flux does for
// sources; here for every kind that is served.
func kindOf(ref notificationv1.CrossNamespaceObjectReference, scheme *runtime.Scheme) (schema.GroupVersionKind, error) {
	if ref.APIVersion != "" {
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		return gv.WithKind(ref.Kind), err
	}
	preferred := sourcev1.GroupVersion.WithKind(ref.Kind)
	if scheme.Recognizes(preferred) {
		return preferred, nil
	}
	for gvk := range scheme.AllKnownTypes() {
		if gvk.Kind == ref.Kind && strings.HasSuffix(gvk.Group, ".toolkit.fluxcd.io") {
			return gvk, nil
		}
	}
	return schema.GroupVersionKind{}, fmt.Errorf("apiVersion must be given for kind %q", ref.Kind)
}

// passes evaluates the filters that are not empty.
func passes(ctx context.Context, o *metav1.PartialObjectMetadata, request map[string]any, filters ...string) (bool, error) {
	for _, text := range filters {
		if text == "" {
			continue
		}
		expression, err := filterExpression(text)
		if err != nil {
			return false, err
		}
		if ok, err := evaluate(ctx, expression, o, request); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func evaluate(ctx context.Context, expression *cel.Expression, o *metav1.PartialObjectMetadata, request map[string]any) (bool, error) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return false, err
	}
	return expression.EvaluateBoolean(ctx, map[string]any{"res": object, "req": request})
}

// annotate asks for a reconcile in Flux's way.
func (c *caller) annotate(ctx context.Context, o *metav1.PartialObjectMetadata) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		meta.ReconcileRequestAnnotation: c.now().Format(time.RFC3339Nano),
	}}})
	if err != nil {
		return err
	}
	return c.client.Patch(ctx, o, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(owner))
}
