package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

const (
	// While policies change all the time, flows are walked for at most this part of it.
	revokeIdleShare = 4
	revokeIdleMax   = time.Second
)

// Revoke has established flows that are denied now, as they began, end at once: their sockets in the pods of this node are
// aborted. The programs do that on a flow's next packet; one on which nobody speaks would have none. It
// happens in [Collector.Run]; when it is called again before, the later one counts.
func (c *Collector) Revoke(denied func(maps.Tuple) bool) {
	c.mu.Lock()
	c.denied = denied
	c.mu.Unlock()
	c.wakeRevocation()
}

func (c *Collector) wakeRevocation() {
	select {
	case c.judge <- struct{}{}:
	default:
	}
}

func (c *Collector) runRevocations(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.judge:
		}
		started := time.Now()
		if err := c.endRevoked(); err != nil {
			c.log.Warn("conntrack: sockets of connections that policy has ended were not all aborted, will try again", "err", err)
			time.AfterFunc(cutRetry, c.wakeRevocation)
		}
		if !sleep(ctx, min(revokeIdleShare*time.Since(started), revokeIdleMax)) {
			return
		}
	}
}

// endRevoked aborts what was revoked last. If it fails, it is to be done again, unless something was revoked since.
func (c *Collector) endRevoked() error {
	c.mu.Lock()
	denied := c.denied
	c.denied = nil
	c.mu.Unlock()
	if denied == nil {
		return nil
	}
	aborted, err := c.abortDenied(denied)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Aborted += aborted
	if err != nil && c.denied == nil {
		c.denied = denied
	}
	if aborted > 0 {
		c.log.Info("sockets of connections that policy has ended were aborted", "sockets", aborted)
	}
	return err
}

func (c *Collector) abortDenied(denied func(maps.Tuple) bool) (aborted int, err error) {
	var ended []revoked
	err = c.table.Flows(func(f maps.Flow) {
		if t := f.FromOriginator(); revocable(f) && denied(t) {
			// Who answered datagrams may still have some to send, as the beginning of a flow of its own.
			ended = append(ended, revoked{t, t.Proto == maps.TCP || denied(t.Reverse())})
		}
	})
	if err != nil || len(ended) == 0 {
		return 0, err
	}
	networks, err := c.networks()
	errs := []error{err}
	doomed := map[string]map[maps.Tuple]bool{}
	for _, f := range ended {
		errs = append(errs, c.doom(doomed, networks, f))
	}
	for network, sockets := range doomed {
		n, err := c.abortSockets(network, sockets)
		aborted += n
		if err != nil {
			errs = append(errs, fmt.Errorf("abort sockets in %s: %w", network, err))
		}
	}
	return aborted, errors.Join(errs...)
}

// revocable says whether there may be sockets to abort. What the node itself has part in is never denied.
func revocable(f maps.Flow) bool {
	return (f.Tuple.Proto == maps.TCP || f.Tuple.Proto == maps.UDP) && !f.Flags.Closed() && f.Flags&maps.FlowNode == 0
}

// revoked is a flow as it was begun.
type revoked struct {
	maps.Tuple
	bothWays bool
}

// doom adds the sockets of a flow, as their owners see them: own end first. Who began the flow may know the other end by the
// address of a Service.
func (c *Collector) doom(doomed map[string]map[maps.Tuple]bool, networks map[netip.Addr]string, f revoked) error {
	add := func(own maps.Tuple) {
		network, here := networks[own.Src.Addr()]
		if !here {
			return
		}
		if doomed[network] == nil {
			doomed[network] = map[maps.Tuple]bool{}
		}
		doomed[network][own] = true
	}
	add(f.Tuple)
	if f.bothWays {
		add(f.Reverse())
	}
	answer, found, err := c.table.Translation(f.Reverse())
	if found {
		add(answer.Reverse())
	}
	return err
}
