package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

// cut is a frontend for datagrams that has lost backends.
type cut struct {
	frontend maps.Frontend
	gone     map[netip.AddrPort]bool
}

func (c cut) ends(t maps.Translation) bool {
	return t.From.Proto == c.frontend.Proto && leadsTo(c.frontend, t.From.Dst) && c.gone[t.To.Dst]
}

// cutRetry is how long after a failure it is tried again.
const cutRetry = time.Second

// CutBackends releases clients bound to backends that the frontend no longer has, and has
// datagram flows to them end, so that the next datagram finds another. Answers under way still
// find their way back. A connection is left to end by itself: a terminating pod is
// meant to finish its work.
//
// Flows are ended by [Collector.Run], at once, but for many frontends in one walk through the
// table: while Services change quickly, a walk for each would hold up the changes.
func (c *Collector) CutBackends(f maps.Frontend, service uint32, gone []netip.AddrPort) error {
	set := map[netip.AddrPort]bool{}
	for _, b := range gone {
		set[b] = true
	}
	if f.Proto == maps.UDP {
		c.mu.Lock()
		c.cuts = append(c.cuts, cut{f, set})
		c.mu.Unlock()
		c.wakeCuts()
	}
	return c.table.CutAffinity(service, func(b netip.AddrPort) bool { return set[b] })
}

func (c *Collector) wakeCuts() {
	select {
	case c.cut <- struct{}{}:
	default:
	}
}

func (c *Collector) runCuts(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.cut:
		}
		if err := c.endCuts(); err != nil {
			c.log.Warn("conntrack: datagram flows to backends that are gone were not ended, will try again", "err", err)
			time.AfterFunc(cutRetry, c.wakeCuts)
		}
	}
}

// endCuts ends the flows of all cuts that wait. Those that fail wait again.
func (c *Collector) endCuts() error {
	c.mu.Lock()
	cuts := c.cuts
	c.cuts = nil
	c.mu.Unlock()
	if len(cuts) == 0 {
		return nil
	}
	byFrontend, gone := map[netip.AddrPort][]cut{}, map[netip.AddrPort]bool{}
	for _, x := range cuts {
		byFrontend[x.frontend.Addr] = append(byFrontend[x.frontend.Addr], x)
		for b := range x.gone {
			gone[b] = true
		}
	}
	err := errors.Join(c.removeTranslations(func(t maps.Translation) bool {
		return slices.ContainsFunc(byFrontend[t.From.Dst], func(x cut) bool { return x.ends(t) }) ||
			slices.ContainsFunc(byFrontend[everyAddress(t.From.Dst)], func(x cut) bool { return x.ends(t) })
	}), c.destroySockets(gone))
	if err != nil {
		c.mu.Lock()
		c.cuts = append(cuts, c.cuts...)
		c.mu.Unlock()
	}
	return err
}

// everyAddress is the frontend for all addresses of the node that an address would belong to.
func everyAddress(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
}

// leadsTo reports whether the frontend serves the address. One for all addresses of the node may
// be taken for another of the same port: that costs a choice of backend, no more.
func leadsTo(f maps.Frontend, addr netip.AddrPort) bool {
	return f.Addr == addr || f.Addr.Addr().IsUnspecified() && f.Addr.Port() == addr.Port()
}
