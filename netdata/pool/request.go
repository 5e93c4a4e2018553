package pool

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// LoadBalancerClass may be named by a Service that wants to be sure; one without class is
// served as well, others are left to others.
const LoadBalancerClass = "bothy.dev/l2"

// Annotations of a Service.
const (
	// AnnotationAddresses asks for addresses, separated by commas, at most one per family.
	AnnotationAddresses = "bothy.dev/load-balancer-addresses"
	// AnnotationPool asks for addresses of one pool.
	AnnotationPool = "bothy.dev/load-balancer-pool"
	// AnnotationSharingKey lets Services that have the same one, different ports and no local
	// traffic policy share addresses.
	AnnotationSharingKey = "bothy.dev/load-balancer-sharing-key"
)

// Request is what a Service asks for.
type Request struct {
	// Service is its namespace/name.
	Service    string
	Namespace  string
	Labels     map[string]string
	Created    time.Time
	Families   []corev1.IPFamily
	AllNeeded  bool // an address of every family, or none
	Want       []netip.Addr
	Pool       string
	SharingKey string
	Ports      []string
	Have       []netip.Addr
}

// Ours reports whether the Service is to get addresses from here.
func Ours(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.DeletionTimestamp == nil &&
		(svc.Spec.LoadBalancerClass == nil || *svc.Spec.LoadBalancerClass == LoadBalancerClass)
}

// RequestOf reads a Service that is ours.
func RequestOf(svc *corev1.Service) (Request, error) {
	r := Request{
		Service: svc.Namespace + "/" + svc.Name, Namespace: svc.Namespace, Labels: svc.Labels, Created: svc.CreationTimestamp.Time,
		Families: svc.Spec.IPFamilies, Pool: svc.Annotations[AnnotationPool], Have: statusAddrs(svc),
		AllNeeded: svc.Spec.IPFamilyPolicy == nil || *svc.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack,
	}
	if len(r.Families) == 0 {
		r.Families = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	// Its traffic goes to one node only, which another Service's may not have endpoints on.
	if svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		r.SharingKey = svc.Annotations[AnnotationSharingKey]
	}
	for _, p := range svc.Spec.Ports {
		r.Ports = append(r.Ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
	}
	want := svc.Annotations[AnnotationAddresses]
	if want == "" {
		want = svc.Spec.LoadBalancerIP
	}
	for text := range strings.SplitSeq(want, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return r, fmt.Errorf("asks for %q, which is not an address; use %s or spec.loadBalancerIP with addresses only", text, AnnotationAddresses)
		}
		if slices.ContainsFunc(r.Want, func(o netip.Addr) bool { return o.Is4() == a.Is4() }) {
			return r, fmt.Errorf("asks for two addresses of one family, %s among them; a Service has at most one of each", a)
		}
		r.Want = append(r.Want, a)
	}
	return r, nil
}

func statusAddrs(svc *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// mayUse reports whether a pool is open to the Service at all.
func (r Request) mayUse(p pool) bool {
	if len(p.spec.Namespaces) > 0 && !slices.Contains(p.spec.Namespaces, r.Namespace) {
		return false
	}
	for k := range maps.Keys(p.spec.ServiceLabels) {
		if r.Labels[k] != p.spec.ServiceLabels[k] {
			return false
		}
	}
	return r.Pool == "" || r.Pool == p.spec.Name
}

// gets reports whether the pool may also give an address that was not asked for.
func (r Request) gets(p pool) bool {
	return r.mayUse(p) && (r.Pool != "" || p.spec.AutoAssign == nil || *p.spec.AutoAssign)
}
