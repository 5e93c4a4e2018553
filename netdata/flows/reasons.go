package flows

import (
	"slices"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Explanation is what an operator wants to know of a reason.
type Explanation struct {
	// What happened, in a sentence.
	What string `json:"what"`
	// Do is what helps, "" where it is nothing to worry about.
	Do string `json:"do,omitempty"`
}

// Reasons are the names of all reasons for which packets are dropped or refused.
func Reasons() []string {
	var out []string
	for _, r := range maps.DropReasons() {
		out = append(out, r.String())
	}
	slices.Sort(out)
	return out
}

// Explain says what a reason means. A reason that is not known, of a newer
// version, has no explanation.
func Explain(reason string) Explanation { return explanations[reason] }

var explanations = map[string]Explanation{
	"malformed": {
		What: "Headers are cut short or contradict each other.",
		Do:   "Find the sender with `bothy flows --reason malformed`; a few are scans, many mean a broken driver or tunnel.",
	},
	"spoofed-source": {
		What: "A pod sent from an address that is not its own, or somebody on the wire from one of the node's.",
		Do:   "Look at the pod: routers and VPNs in pods need hostNetwork. Otherwise treat it as an attack.",
	},
	"fragment": {
		What: "A fragment of a datagram would need translation and has no ports to find it by.",
		Do:   "Lower the datagram size of the application below the MTU, or use TCP.",
	},
	"protocol": {
		What: "A protocol without ports was sent to a service address, or to the outside under the node's address.",
		Do:   "Services carry TCP, UDP and SCTP only; ping pods, not Services.",
	},
	"services-not-synced": {
		What: "An unknown service address was asked for before the node had read all Services from the API.",
		Do:   "Nothing at start-up: clients try again. If it goes on, `bothy status` says why the component \"services\" is not ready.",
	},
	"no-snat-port": {
		What: "Every source port that was tried towards one destination is taken.",
		Do:   "Spread the load over several destination addresses or ports, or reuse connections.",
	},
	"rewrite-failed": {
		What: "The kernel refused to change a packet, mostly for want of memory.",
		Do:   "Look at the node's memory and at the kernel's log.",
	},
	"no-flow": {
		What: "An answer left for the outside that belongs to no flow.",
	},
	"link-scope": {
		What: "A pod sent to all on its link, on which there is nobody but the node: IPv6 does so whenever an interface comes up.",
	},
	"refused-no-endpoint": {
		What: "A Service was asked that has no ready endpoint.",
		Do:   "`kubectl get endpointslices` of the Service: is its selector right, are its pods Ready?",
	},
	"refused-no-service": {
		What: "No Service has this address and port.",
		Do:   "Compare the port with those of the Service; clients may hold the address of a deleted one.",
	},
	"refused-no-flow": {
		What: "A segment in the middle of a connection to a Service that the node knows nothing of: its state expired or was evicted.",
		Do:   "The client connects anew. If it is frequent, look at the fill of table \"nats\" in `bothy net status`, and use keep-alives.",
	},
	"no-local-endpoint": {
		What: "A Service whose traffic policy is Local was asked on this node, and its endpoints are on others.",
		Do:   "Send clients to nodes whose healthCheckNodePort answers, or use the traffic policy Cluster.",
	},
	"source-range": {
		What: "The client is in none of the Service's loadBalancerSourceRanges.",
		Do:   "If it should be served, add its range to the Service.",
	},
	"policy-ingress": {
		What: "No NetworkPolicy that selects the receiving pod allows it in.",
		Do:   "`bothy flows --reason policy-ingress` names both ends; add a rule to a policy of the receiver.",
	},
	"policy-egress": {
		What: "No NetworkPolicy that selects the sending pod allows it out.",
		Do:   "`bothy flows --reason policy-egress` names both ends; add a rule to a policy of the sender.",
	},
	"refused-revoked": {
		What: "A connection was cut because a policy no longer allows it.",
	},
}
