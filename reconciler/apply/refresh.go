package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Refresh looks for objects that somebody changed or deleted, so that the next
// Sync sends them again, and for those whose health may have changed. It costs
// one list of metadata per kind, and is for engines without a hub: with one,
// Notify tells. It returns the objects that drifted.
func (e *Engine) Refresh(ctx context.Context) ([]ID, error) {
	seen := map[*resource]bool{}
	for _, o := range e.order {
		if o.res == nil || seen[o.res] {
			continue
		}
		seen[o.res] = true
		if err := e.refreshKind(ctx, o.res); err != nil {
			return nil, fmt.Errorf("look for drift of %s: %w", o.id.Kind, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var drifted []ID
	for _, o := range e.order {
		if o.noticed != nil {
			drifted = append(drifted, o.id)
		}
	}
	return drifted, nil
}

// refreshKind observes all objects of one kind.
func (e *Engine) refreshKind(ctx context.Context, r *resource) error {
	there := map[ID]sighting{}
	version, err := e.listMetadata(ctx, r, func(meta *metav1.PartialObjectMetadata) {
		there[ID{Namespace: meta.Namespace, Name: meta.Name}] = sightingOf(meta)
	})
	if apierrors.IsNotFound(err) {
		err = nil // the kind is gone, and its objects with it
	}
	if err = unavailable(err); err != nil {
		return err
	}
	for _, o := range e.order {
		if o.res != r {
			continue
		}
		s, ok := there[ID{Namespace: o.id.Namespace, Name: o.id.Name}]
		if !ok {
			s = sighting{known: known{version: version}, gone: true}
		}
		e.observe(o.id.key(), s)
	}
	return nil
}

// listMetadata lists the objects with the engine's label.
func (e *Engine) listMetadata(ctx context.Context, r *resource, each func(*metav1.PartialObjectMetadata)) (version string, err error) {
	options := metav1.ListOptions{LabelSelector: InventoryLabel + "=" + e.o.Name, Limit: pageSize}
	for {
		list, err := e.listPage(ctx, r, options)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			each(&list.Items[i])
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return list.ResourceVersion, nil
		}
	}
}

func (e *Engine) listPage(ctx context.Context, r *resource, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	bounded, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := e.client.links.Load().metadata.Resource(r.GroupVersionResource).List(bounded, options)
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return list, err
}
