package maps

import "fmt"

// dropReasons are the names of enum drop_reason in bpf/src/drop.h, in its order.
var dropReasons = []string{
	"none",
	"malformed",
	"spoofed-source",
	"fragment",
	"protocol",
	"services-not-synced",
	"no-snat-port",
	"rewrite-failed",
	"no-flow",
	"refused-no-endpoint",
	"refused-no-service",
	"refused-no-flow",
	"link-scope",
	"policy-ingress",
	"policy-egress",
	"refused-revoked",
}

// Drops reads how many packets and connection attempts were dropped or
// refused, by reason. Reasons that never happened are left out.
func (t *Tables) Drops() (map[string]uint64, error) {
	out := map[string]uint64{}
	// A pinned table of an earlier version may know fewer reasons.
	known := dropReasons[:min(len(dropReasons), int(t.shared["drops"].MaxEntries()))]
	for i, name := range known {
		var perCPU []uint64
		if err := t.shared["drops"].Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read drop counter %q: %w", name, err)
		}
		var sum uint64
		for _, n := range perCPU {
			sum += n
		}
		if sum > 0 {
			out[name] = sum
		}
	}
	return out, nil
}
