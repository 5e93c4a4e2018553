package netdata

import (
	_ "embed"
	"strings"
)

//go:embed system.yaml
var systemYAML string

// SystemObjects is a multi-document manifest of what the wing needs in the API:
// the rights of its two identities, and the Service by which tools find the
// cluster DNS.
func (n *Network) SystemObjects() []byte {
	return []byte(strings.ReplaceAll(systemYAML, "${CLUSTER_DNS}", n.cfg.ClusterDNS.String()))
}
