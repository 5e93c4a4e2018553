package flags

import (
	"net/netip"
	"strconv"

	"github.com/bothy-os/bothy/bootstrap/paths"
)

// singleton are the settings of a component that shares its process with
// everything it could be a leader over: no election, no port of its own.
func (l *list) singleton(p paths.Paths, identity string) {
	l.set("kubeconfig", p.Kubeconfig(identity))
	l.set("secure-port", "0")
	l.set("leader-elect", "false")
	l.set("profiling", "false")
	l.appended = map[string]bool{"feature-gates": true}
	l.refused = refuseEverywhere()
	delete(l.refused, "kubeconfig") // set above, so refused as such
	l.refuse("the component has no port", "bind-address", "cert-dir", "tls-cert-file", "tls-private-key-file", "tls-min-version", "tls-cipher-suites",
		"tls-sni-cert-key", "authentication-kubeconfig", "authorization-kubeconfig", "client-ca-file", "requestheader-client-ca-file", "permit-port-sharing", "permit-address-sharing")
}

func controllerManager(in Input) *list {
	p, spec := in.Paths, in.Cluster.Spec
	l := &list{}
	l.singleton(p, "controller-manager")

	// Each controller acts as its own service account with its own RBAC role.
	l.set("use-service-account-credentials", "true")
	l.set("service-account-private-key-file", p.ServiceAccountKey())
	l.set("root-ca-file", p.ClusterCA())
	l.set("cluster-signing-cert-file", p.ClusterCA())
	l.set("cluster-signing-key-file", p.ClusterCAKey())
	l.set("cluster-signing-duration", "720h") // as long as our own leaves live

	l.set("allocate-node-cidrs", "true")
	l.set("cluster-cidr", join(spec.Network.PodCIDRs))
	l.set("service-cluster-ip-range", join(spec.Network.ServiceCIDRs))
	for _, cidr := range spec.Network.PodCIDRs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			continue // refused by the validation of the settings
		}
		if prefix.Addr().Is4() {
			l.set("node-cidr-mask-size-ipv4", strconv.Itoa(max(24, prefix.Bits())))
		} else {
			l.set("node-cidr-mask-size-ipv6", strconv.Itoa(max(64, prefix.Bits())))
		}
	}

	l.set("flex-volume-plugin-dir", p.FlexVolumes())

	// The default of 20 requests a second makes a first start take six seconds
	// longer; the API server's own fairness protects it.
	l.set("kube-api-qps", "500")
	l.set("kube-api-burst", "1000")
	return l
}
