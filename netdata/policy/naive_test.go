package policy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// naive judges a packet the way the documentation of the NetworkPolicy API says, object by
// object, with nothing of the package it is to check.
type naive struct {
	node       string
	pods       map[string]*corev1.Pod
	namespaces map[string]*corev1.Namespace
	policies   map[string]*networkingv1.NetworkPolicy
}

func (n *naive) allowed(p packet) bool {
	if p.from == p.to {
		return true
	}
	from, to := n.owner(p.from), n.owner(p.to)
	return n.passes(from, networkingv1.PolicyTypeEgress, p.to, to, p) && n.passes(to, networkingv1.PolicyTypeIngress, p.from, from, p)
}

func (n *naive) owner(a netip.Addr) *corev1.Pod {
	for _, pod := range n.pods {
		for _, ip := range pod.Status.PodIPs {
			if netip.MustParseAddr(ip.IP) == a && !pod.Spec.HostNetwork && pod.Status.Phase == corev1.PodRunning {
				return pod
			}
		}
	}
	return nil
}

// passes: only the policies of pods on this node are this node's business.
func (n *naive) passes(subject *corev1.Pod, way networkingv1.PolicyType, peer netip.Addr, peerPod *corev1.Pod, p packet) bool {
	if subject == nil || subject.Spec.NodeName != n.node {
		return true
	}
	isolated := false
	for _, np := range n.policies {
		if np.Namespace != subject.Namespace || !matches(&np.Spec.PodSelector, subject.Labels) || !slices.Contains(np.Spec.PolicyTypes, way) {
			continue
		}
		isolated = true
		if way == networkingv1.PolicyTypeIngress {
			for _, r := range np.Spec.Ingress {
				if n.peers(np, r.From, peer, peerPod) && portsMatch(r.Ports, subject, p) {
					return true
				}
			}
			continue
		}
		for _, r := range np.Spec.Egress {
			if n.peers(np, r.To, peer, peerPod) && portsMatch(r.Ports, peerPod, p) {
				return true
			}
		}
	}
	return !isolated
}

func (n *naive) peers(np *networkingv1.NetworkPolicy, peers []networkingv1.NetworkPolicyPeer, addr netip.Addr, pod *corev1.Pod) bool {
	if len(peers) == 0 {
		return true
	}
	return slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		if b := peer.IPBlock; b != nil {
			return netip.MustParsePrefix(b.CIDR).Contains(addr) &&
				!slices.ContainsFunc(b.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(addr) })
		}
		if pod == nil {
			return false
		}
		if peer.NamespaceSelector == nil && pod.Namespace != np.Namespace {
			return false
		}
		if peer.NamespaceSelector != nil {
			ns := n.namespaces[pod.Namespace]
			if ns == nil || !matches(peer.NamespaceSelector, ns.Labels) {
				return false
			}
		}
		return peer.PodSelector == nil || matches(peer.PodSelector, pod.Labels)
	})
}

func portsMatch(ports []networkingv1.NetworkPolicyPort, receiver *corev1.Pod, p packet) bool {
	if len(ports) == 0 {
		return true
	}
	names := map[tables.Protocol]corev1.Protocol{tables.TCP: corev1.ProtocolTCP, tables.UDP: corev1.ProtocolUDP, tables.SCTP: corev1.ProtocolSCTP}
	return slices.ContainsFunc(ports, func(want networkingv1.NetworkPolicyPort) bool {
		if *want.Protocol != names[p.proto] {
			return false
		}
		switch {
		case want.Port == nil:
			return true
		case want.Port.StrVal != "":
			return receiver != nil && slices.ContainsFunc(receiver.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool {
				return c.Name == want.Port.StrVal && c.Protocol == *want.Protocol && c.ContainerPort == int32(p.port)
			})
		case want.EndPort != nil:
			return int32(p.port) >= want.Port.IntVal && int32(p.port) <= *want.EndPort
		default:
			return int32(p.port) == want.Port.IntVal
		}
	})
}

// matches knows what the random worlds use: equality, In, NotIn, Exists and DoesNotExist.
func matches(s *metav1.LabelSelector, labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if labels[k] != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		v, has := labels[e.Key]
		ok := map[metav1.LabelSelectorOperator]bool{
			metav1.LabelSelectorOpIn:           has && slices.Contains(e.Values, v),
			metav1.LabelSelectorOpNotIn:        !has || !slices.Contains(e.Values, v),
			metav1.LabelSelectorOpExists:       has,
			metav1.LabelSelectorOpDoesNotExist: !has,
		}[e.Operator]
		if !ok {
			return false
		}
	}
	return true
}
