package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Refresh looks for objects that somebody changed or deleted, so that the next
// Sync sends them again, and for those whose health may have changed. It costs
// one list of metadata per kind; an object whose resource version is the known
// one costs nothing more. It returns the objects that drifted.
func (e *Engine) Refresh(ctx context.Context) ([]ID, error) {
	kinds := map[schema.GroupVersionKind][]*object{}
	for _, o := range e.objects {
		if o.uid != "" && o.failure == nil {
			kinds[o.id.gvk()] = append(kinds[o.id.gvk()], o)
		}
	}
	var drifted []ID
	for gvk, objects := range kinds {
		live, err := e.listMetadata(ctx, gvk)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			moved, err := e.compare(ctx, o, live[o.id.key()])
			if err != nil {
				return nil, err
			}
			if moved {
				drifted = append(drifted, o.id)
			}
		}
	}
	return drifted, nil
}

// compare takes note of what happened to one object. Status changes move the
// resource version but not the generation; kinds without a generation are taken
// for drifted whenever they changed, which costs one apply that changes nothing.
func (e *Engine) compare(ctx context.Context, o *object, live *metav1.PartialObjectMetadata) (bool, error) {
	switch {
	case live == nil || live.UID != o.uid:
		o.uid, o.health = "", health{State: Unknown, Message: "was deleted by somebody else"}
		return true, nil
	case live.ResourceVersion == o.resourceVersion:
		return false, nil
	case live.Generation == 0 || live.Generation != o.generation || live.Labels[InventoryLabel] != e.name || o.metadataDiffers(live):
		o.uid = ""
		return true, nil
	}
	return false, e.look(ctx, o)
}

// metadataDiffers reports whether a label or annotation from Git is not on the
// live object; metadata does not count for the generation.
func (o *object) metadataDiffers(live *metav1.PartialObjectMetadata) bool {
	want, err := o.metadata()
	if err != nil {
		return true
	}
	for key, value := range want.Labels {
		if live.Labels[key] != value {
			return true
		}
	}
	for key, value := range want.Annotations {
		if live.Annotations[key] != value {
			return true
		}
	}
	return false
}

func (e *Engine) listMetadata(ctx context.Context, gvk schema.GroupVersionKind) (map[ID]*metav1.PartialObjectMetadata, error) {
	out := map[ID]*metav1.PartialObjectMetadata{}
	r, err := e.client.resourceOf(ctx, gvk)
	if errors.Is(err, errNoKind) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	options := metav1.ListOptions{LabelSelector: InventoryLabel + "=" + e.name, Limit: 500}
	for {
		list, err := e.client.metadata.Resource(r.GroupVersionResource).List(ctx, options)
		if apierrors.IsNotFound(err) {
			e.client.forget()
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for drift of %s: %w", gvk.Kind, unavailable(err))
		}
		for i := range list.Items {
			item := &list.Items[i]
			out[ID{Group: gvk.Group, Kind: gvk.Kind, Namespace: item.Namespace, Name: item.Name}] = item
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return out, nil
		}
	}
}
