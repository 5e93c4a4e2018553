package netdata

import (
	_ "embed"
	"strconv"
	"strings"
)

//go:embed system.yaml
var systemYAML string

// SystemObjects is a multi-document manifest of what the wing needs in the API:
// the rights of its two identities, and the Service by which tools find the
// cluster DNS.
func (n *Network) SystemObjects() []byte {
	var quoted []string
	for _, a := range n.clusterDNS {
		quoted = append(quoted, strconv.Quote(a.String()))
	}
	return []byte(strings.NewReplacer(
		"${CLUSTER_DNS}", quoted[0], "${ALL_CLUSTER_DNS}", strings.Join(quoted, ", "),
	).Replace(systemYAML))
}
