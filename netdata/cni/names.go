package cni

import "net/netip"

// PodNames are the living pods as namespace/name, by address. A pod whose runtime did not say its
// name is left out.
func (s *Server) PodNames() (map[netip.Addr]string, error) {
	all, err := s.records.all()
	out := make(map[netip.Addr]string, len(all))
	for _, rec := range all {
		if rec.Pod == "" {
			continue
		}
		for _, a := range rec.Addrs {
			out[a] = rec.Pod
		}
	}
	return out, err
}
