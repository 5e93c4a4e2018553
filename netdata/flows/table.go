package flows

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Entry is a flow that conntrack knows.
type Entry struct {
	Protocol string `json:"protocol"`
	From     Peer   `json:"from"`
	To       Peer   `json:"to"`
	// Asked is the service address that From asked for.
	Asked *Peer `json:"asked,omitempty"`
	// Masquerade is the address under which From is known outside.
	Masquerade string         `json:"masquerade,omitempty"`
	State      maps.FlowState `json:"state"`
	// Idle is the time since the last packet, with a resolution of a second.
	Idle time.Duration `json:"idleNanoseconds"`
	// Revision of the policies under which the flow was admitted.
	Revision uint32 `json:"policyRevision"`
}

// Conntrack is the part of maps.Tables that holds flows.
type Conntrack interface {
	Flows(visit func(maps.Flow)) error
	Translations(visit func(maps.Translation)) error
}

// Table lists the present flows that match; the filter's verdicts, reasons and
// Ends do not count. The order is by protocol, From and To.
func Table(table Conntrack, filter Filter, names Names) ([]Entry, error) {
	now, err := maps.Now()
	if err != nil {
		return nil, err
	}
	translations, err := readTranslations(table)
	if err != nil {
		return nil, err
	}
	var out []Entry
	err = table.Flows(func(f maps.Flow) {
		e := entry(f, now, translations, names)
		if filter.matchEnds(e.Protocol, e.From, e.To, e.Asked) {
			out = append(out, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), comparePeers(a.From, b.From), comparePeers(a.To, b.To))
	})
	return out, nil
}

func readTranslations(table Conntrack) (map[maps.Tuple]maps.Tuple, error) {
	out := map[maps.Tuple]maps.Tuple{}
	if err := table.Translations(func(t maps.Translation) { out[t.From] = t.To }); err != nil {
		return nil, fmt.Errorf("read translations: %w", err)
	}
	return out, nil
}

func entry(f maps.Flow, now uint32, translations map[maps.Tuple]maps.Tuple, names Names) Entry {
	t := f.Tuple
	if f.Flags&maps.FlowSwapped != 0 {
		t = t.Reverse()
	}
	e := Entry{Protocol: protocol(t.Proto), State: f.Flags.State(), Revision: f.Revision}
	// A row may have been touched after the tick was read.
	if age := int32(now - f.Seen); age > 0 {
		e.Idle = maps.Duration(uint32(age))
	}
	from := t.Src
	// What turns answers back shows what was asked; what changes the question, the masquerade.
	if back, ok := translations[t.Reverse()]; ok {
		p := servicePeer(back.Src, t.Proto, names)
		e.Asked, from = &p, back.Dst
	}
	if out, ok := translations[t]; ok && out.Src != t.Src {
		e.Masquerade = out.Src.String()
	}
	e.From, e.To = peer(from, names), peer(t.Dst, names)
	return e
}

func comparePeers(a, b Peer) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
}
