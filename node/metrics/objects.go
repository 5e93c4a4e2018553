package metrics

import (
	_ "embed"
	"net/netip"
	"strconv"
	"strings"
)

//go:embed objects.yaml
var objects string

// SystemObjects returns the objects that introduce the metrics API of one node
// to the API server, as a multi-document manifest. The APIService has no
// caBundle: it is filled in with the cluster's CA by whoever applies it.
//
// The API server finds the node through the EndpointSlice if it runs with
// --enable-aggregator-routing=true, and through the ClusterIP otherwise. The
// flag is the better way: it does not depend on the data plane.
func SystemObjects(nodeName string, nodeIP netip.Addr) []byte {
	family := "IPv4"
	if nodeIP.Is6() {
		family = "IPv6"
	}
	return []byte(strings.NewReplacer(
		"$(NODE_NAME)", nodeName, "$(NODE_IP)", nodeIP.String(), "$(FAMILY)", family, "$(PORT)", strconv.Itoa(Port),
	).Replace(objects))
}
