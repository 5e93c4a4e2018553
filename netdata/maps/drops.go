package maps

import (
	"fmt"
	"strings"
)

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
	"no-local-endpoint",
	"source-range",
}

// Hook is where in the dataplane something happened.
type Hook uint8

// The order is that of enum hook in bpf/src/drop.h.
const (
	HookUnknown Hook = iota
	HookFromPod
	HookToPod
	HookFromExt
	HookToExt
	HookSocket

	// hooks is how many counters a reason has; some are kept for hooks to come.
	hooks = 8
)

var hookNames = [hooks]string{"other", "from-pod", "to-pod", "from-outside", "to-outside", "socket", "", ""}

func (h Hook) String() string {
	if int(h) >= len(hookNames) || hookNames[h] == "" {
		return fmt.Sprintf("hook %d", uint8(h))
	}
	return hookNames[h]
}

// DropReason is the number of a reason, as the programs know it.
type DropReason uint8

func (r DropReason) String() string {
	if int(r) >= len(dropReasons) {
		return fmt.Sprintf("reason %d", uint8(r))
	}
	return dropReasons[r]
}

// Refusal says that the sender was answered with a no, instead of being left waiting.
func (r DropReason) Refusal() bool { return strings.HasPrefix(r.String(), "refused-") }

// DropReasons are all reasons there can be.
func DropReasons() []DropReason {
	var out []DropReason
	for r := 1; r < len(dropReasons); r++ {
		out = append(out, DropReason(r))
	}
	return out
}

// DropCount says how often something was dropped or refused for one reason at one place.
type DropCount struct {
	Reason DropReason
	Hook   Hook
	Count  uint64
}

// DropCounts reads how many packets and connection attempts were dropped or
// refused, by reason and hook. What never happened is left out.
func (t *Tables) DropCounts() ([]DropCount, error) {
	var out []DropCount
	counters := int(t.shared["drops"].MaxEntries())
	for _, reason := range DropReasons() {
		for hook := range Hook(hooks) {
			index := int(reason)*hooks + int(hook)
			// A pinned table of an earlier version may know fewer reasons.
			if index >= counters {
				return out, nil
			}
			var perCPU []uint64
			if err := t.shared["drops"].Lookup(uint32(index), &perCPU); err != nil {
				return nil, fmt.Errorf("read drop counter %q: %w", reason, err)
			}
			var sum uint64
			for _, n := range perCPU {
				sum += n
			}
			if sum > 0 {
				out = append(out, DropCount{reason, hook, sum})
			}
		}
	}
	return out, nil
}

// Drops sums up DropCounts by the names of the reasons.
func (t *Tables) Drops() (map[string]uint64, error) {
	counts, err := t.DropCounts()
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for _, c := range counts {
		out[c.Reason.String()] += c.Count
	}
	return out, nil
}
