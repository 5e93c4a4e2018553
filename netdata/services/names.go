package services

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// Frontends names the Services, as namespace/name, behind the addresses that the API has given them; it
// is empty until they are known. It walks over everything: ask seldom.
func (c *Controller) Frontends() (map[tables.Frontend]string, error) {
	r := c.live.Load()
	if r == nil {
		return nil, nil
	}
	all, err := r.services.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	out := map[tables.Frontend]string{}
	for _, svc := range all {
		for _, f := range c.frontends(svc) {
			out[f] = svc.Namespace + "/" + svc.Name
		}
	}
	return out, nil
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
