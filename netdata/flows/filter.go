package flows

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bothy-os/bothy/netdata/maps"
)

// linkScope is what every IPv6 host does all the time and nobody looks for.
const linkScope = "link-scope"

// Filter chooses flows. The values of a field are alternatives; the fields that are set must all
// match. The zero Filter matches everything but the ends of flows and drops for the reason link-scope, which
// must be asked for.
type Filter struct {
	// Pods and Namespaces match either end.
	Pods, Namespaces []string
	// From and To match the end that began the flow, and the one it goes to or asked for: a pod
	// (name or namespace/name), an address, a range, or "outside".
	From, To []string
	// Services matches the Service asked for, by name or namespace/name.
	Services []string
	// Ports match the port of To or of the service asked for.
	Ports []uint16
	// Protocols as in Flow.
	Protocols []string
	// Verdicts and Reasons as in Flow.
	Verdicts []Verdict
	Reasons  []string
	// Ends asks for the ends of connections, too.
	Ends bool
}

// The names of the fields in a query.
const (
	queryPod       = "pod"
	queryNamespace = "namespace"
	queryFrom      = "from"
	queryTo        = "to"
	queryService   = "service"
	queryPort      = "port"
	queryProtocol  = "proto"
	queryVerdict   = "verdict"
	queryReason    = "reason"
	queryEnds      = "ends"
)

// Query is the filter as the query of a URL.
func (f Filter) Query() url.Values {
	q := url.Values{}
	set := func(key string, values []string) {
		if len(values) > 0 {
			q[key] = values
		}
	}
	set(queryPod, f.Pods)
	set(queryNamespace, f.Namespaces)
	set(queryFrom, f.From)
	set(queryTo, f.To)
	set(queryService, f.Services)
	set(queryProtocol, f.Protocols)
	set(queryReason, f.Reasons)
	for _, p := range f.Ports {
		q.Add(queryPort, itoa(p))
	}
	for _, v := range f.Verdicts {
		q.Add(queryVerdict, string(v))
	}
	if f.Ends {
		q.Set(queryEnds, "1")
	}
	return q
}

// ParseFilter reads a query and checks it; the error names the field.
func ParseFilter(q url.Values) (Filter, error) {
	f := Filter{
		Pods: q[queryPod], Namespaces: q[queryNamespace], From: q[queryFrom], To: q[queryTo],
		Services: q[queryService], Reasons: q[queryReason], Ends: q.Get(queryEnds) != "",
	}
	for _, p := range q[queryProtocol] {
		f.Protocols = append(f.Protocols, strings.ToUpper(p))
	}
	for _, p := range q[queryPort] {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return Filter{}, fmt.Errorf("port %q: want a number from 0 to 65535", p)
		}
		f.Ports = append(f.Ports, uint16(n))
	}
	for _, v := range q[queryVerdict] {
		f.Verdicts = append(f.Verdicts, Verdict(v))
	}
	for key := range q {
		if !slices.Contains([]string{
			queryPod, queryNamespace, queryFrom, queryTo, queryService, queryPort,
			queryProtocol, queryVerdict, queryReason, queryEnds,
		}, key) {
			return Filter{}, fmt.Errorf("%s: no such filter", key)
		}
	}
	return f, f.check()
}

// check names the field and what can be written there.
func (f Filter) check() error {
	for _, v := range f.Verdicts {
		if v != Forwarded && v != Dropped && v != Refused {
			return fmt.Errorf("verdict %q: want forwarded, dropped or refused", v)
		}
	}
	for _, r := range f.Reasons {
		if !matchesAny(Reasons(), r) {
			return fmt.Errorf("reason %q is not known: want one of %s", r, strings.Join(Reasons(), ", "))
		}
	}
	for _, p := range f.Protocols {
		if _, err := strconv.ParseUint(p, 10, 8); err != nil && !isProtocol(p) {
			return fmt.Errorf("proto %q: want tcp, udp, sctp, icmp, icmpv6 or a number", p)
		}
	}
	for field, patterns := range map[string][]string{
		queryPod: f.Pods, queryNamespace: f.Namespaces, queryFrom: f.From, queryTo: f.To, queryService: f.Services,
	} {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" || strings.Count(p, "/") > 1 {
				return fmt.Errorf("%s %q: want a name or namespace/name; * stands for any letters", field, p)
			}
		}
	}
	return nil
}

func isProtocol(name string) bool {
	for _, p := range protocols {
		if strings.EqualFold(p, name) {
			return true
		}
	}
	return false
}

// Kinds are the events that can match: others need not be raised at all.
func (f Filter) Kinds() maps.EventKinds {
	wants := func(v Verdict) bool { return len(f.Verdicts) == 0 || slices.Contains(f.Verdicts, v) }
	var kinds maps.EventKinds
	if wants(Dropped) {
		kinds |= maps.Kinds(maps.EventDrop)
	}
	if wants(Refused) {
		kinds |= maps.Kinds(maps.EventRefuse)
	}
	// What is forwarded has no reason.
	if wants(Forwarded) && len(f.Reasons) == 0 {
		kinds |= maps.Kinds(maps.EventNew, maps.EventConnect)
		if f.Ends {
			kinds |= maps.Kinds(maps.EventEnd)
		}
	}
	return kinds
}

// Match says whether the filter chooses the flow.
func (f Filter) Match(flow *Flow) bool {
	switch {
	case !f.Ends && (flow.What == Closed || flow.What == Reset),
		len(f.Verdicts) > 0 && !slices.Contains(f.Verdicts, flow.Verdict),
		len(f.Reasons) > 0 && !matchesOne(f.Reasons, flow.Reason),
		len(f.Reasons) == 0 && flow.Reason == linkScope:
		return false
	}
	return f.matchEnds(flow.Protocol, flow.From, flow.To, flow.Asked)
}

// matchEnds is the part of the filter that also chooses entries of the table.
func (f Filter) matchEnds(proto string, from, to Peer, asked *Peer) bool {
	isPod := func(p Peer) bool { return isPodOf(f.Pods, p) }
	inNamespace := func(p Peer) bool { return matchesOne(f.Namespaces, p.Namespace) || inServiceNamespace(f.Namespaces, p) }
	switch {
	case len(f.Protocols) > 0 && !containsFold(f.Protocols, proto),
		len(f.Pods) > 0 && !isPod(from) && !isPod(to),
		len(f.Namespaces) > 0 && !inNamespace(from) && !inNamespace(to) && (asked == nil || !inNamespace(*asked)),
		len(f.From) > 0 && !isEnd(f.From, from),
		len(f.To) > 0 && !isEnd(f.To, to) && (asked == nil || !isEnd(f.To, *asked)),
		len(f.Services) > 0 && (asked == nil || !isService(f.Services, *asked)),
		len(f.Ports) > 0 && !slices.Contains(f.Ports, to.Port) && (asked == nil || !slices.Contains(f.Ports, asked.Port)):
		return false
	}
	return true
}

func containsFold(values []string, v string) bool {
	return slices.ContainsFunc(values, func(s string) bool { return strings.EqualFold(s, v) })
}

// isEnd says whether one of the patterns, as From and To have them, means the peer.
func isEnd(patterns []string, p Peer) bool {
	for _, pattern := range patterns {
		if pattern == "outside" && p.Pod == "" && p.Service == "" && p.Node == "" {
			return true
		}
		if prefix, err := netip.ParsePrefix(pattern); err == nil {
			if prefix.Contains(p.Addr) {
				return true
			}
			continue
		}
		if addr, err := netip.ParseAddr(pattern); err == nil {
			if addr == p.Addr {
				return true
			}
			continue
		}
		if isPodOf([]string{pattern}, p) || isService([]string{pattern}, p) {
			return true
		}
		if p.Host != "" && matches(pattern, p.Host) || p.Pod == "" && p.Node != "" && matches(pattern, p.Node) {
			return true
		}
	}
	return false
}

func isPodOf(patterns []string, p Peer) bool {
	return p.Pod != "" && matchesName(patterns, p.Namespace, p.Pod)
}

func isService(patterns []string, p Peer) bool {
	namespace, name, ok := strings.Cut(p.Service, "/")
	return ok && matchesName(patterns, namespace, name)
}

func inServiceNamespace(patterns []string, p Peer) bool {
	namespace, _, ok := strings.Cut(p.Service, "/")
	return ok && matchesOne(patterns, namespace)
}

// matchesName compares with patterns of the form name or namespace/name.
func matchesName(patterns []string, namespace, name string) bool {
	for _, pattern := range patterns {
		if strings.Contains(pattern, "/") {
			if matches(pattern, namespace+"/"+name) {
				return true
			}
		} else if matches(pattern, name) {
			return true
		}
	}
	return false
}

func matchesOne(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

func matchesAny(names []string, pattern string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return matches(pattern, n) })
}

// matches compares with a pattern in which * stands for any letters but a slash.
func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}
