package cni

import "net/netip"

// Networks are the paths of the pods' network namespaces, by the pods' addresses. The error names records that
// cannot be read; the others are returned all the same.
func (s *Server) Networks() (map[netip.Addr]string, error) {
	all, err := s.records.all()
	out := map[netip.Addr]string{}
	for _, rec := range all {
		for _, a := range rec.Addrs {
			out[a] = rec.Netns
		}
	}
	return out, err
}
