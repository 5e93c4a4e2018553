package services

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// followZone watches the node's own Node object for its zone, and has every Service compiled
// again when that changes. It returns whether the object has been read.
func (r *run) followZone(ctx context.Context) (cache.InformerSynced, error) {
	own := fields.OneTermEqualSelector(metav1.ObjectNameField, r.node.Name).String()
	informer := coreinformers.NewFilteredNodeInformer(r.client, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = own
	})
	if err := informer.SetTransform(stripNode); err != nil {
		return nil, fmt.Errorf("watch the node: %w", err)
	}
	registered, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    r.zoneOf,
		UpdateFunc: func(_, after any) { r.zoneOf(after) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch the node: %w", err)
	}
	go informer.RunWithContext(ctx)
	return registered.HasSynced, nil
}

// stripNode leaves the labels, which is all that is of interest here.
func stripNode(obj any) (any, error) {
	if n, ok := obj.(*corev1.Node); ok {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, ResourceVersion: n.ResourceVersion}}, nil
	}
	return obj, nil
}

func (r *run) zoneOf(obj any) {
	n, ok := obj.(*corev1.Node)
	if !ok || !r.setZone(n.Labels[corev1.LabelTopologyZone]) || !r.begun.Load() {
		return
	}
	all, err := r.services.List(labels.Everything())
	if err != nil {
		r.log.Error("list services for a changed zone", "err", err)
		return
	}
	for _, svc := range all {
		r.queue.Add(svc.Namespace + "/" + svc.Name)
	}
}

func (c *Controller) setZone(zone string) (changed bool) {
	c.zoneMu.Lock()
	defer c.zoneMu.Unlock()
	changed = c.node.Zone != zone
	c.node.Zone = zone
	return changed
}

func (c *Controller) nodeNow() Node {
	c.zoneMu.Lock()
	defer c.zoneMu.Unlock()
	return c.node
}
