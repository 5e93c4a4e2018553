package services

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Directory is who is behind addresses, as the API said last.
type Directory struct {
	// Frontends are Services as namespace/name.
	Frontends map[tables.Frontend]string
	// Pods are those behind any Service, on all nodes.
	Pods map[netip.Addr]Pod
}

// Pod is where an address of an EndpointSlice belongs.
type Pod struct {
	Namespace, Name, Node string
}

// Directory reads what the controller watches anyway; it is empty until that is
// known. It walks over everything: ask seldom.
func (c *Controller) Directory() (Directory, error) {
	d := Directory{Frontends: map[tables.Frontend]string{}, Pods: map[netip.Addr]Pod{}}
	r := c.live.Load()
	if r == nil {
		return d, nil
	}
	all, err := r.services.List(labels.Everything())
	if err != nil {
		return d, err
	}
	for _, svc := range all {
		for _, f := range c.frontends(svc) {
			d.Frontends[f] = svc.Namespace + "/" + svc.Name
		}
	}
	endpointSlices, err := r.slices.List(labels.Everything())
	if err != nil {
		return d, err
	}
	for _, slice := range endpointSlices {
		for _, ep := range slice.Endpoints {
			if ep.TargetRef == nil || ep.TargetRef.Kind != "Pod" {
				continue
			}
			pod := Pod{Namespace: slice.Namespace, Name: ep.TargetRef.Name}
			if ep.NodeName != nil {
				pod.Node = *ep.NodeName
			}
			for _, text := range ep.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					d.Pods[a] = pod
				}
			}
		}
	}
	return d, nil
}

// frontends are the addresses of a Service, among them the cluster DNS address, which has no rows.
func (c *Controller) frontends(svc *corev1.Service) []tables.Frontend {
	node := c.node
	node.ClusterDNS = nil
	rows, _ := Compile(svc, nil, node) // problems are for the Service's status
	out := make([]tables.Frontend, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.Frontend)
	}
	return out
}
