package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/bothy-os/bothy/test/cluster"
)

// cell is one of the measurements of a round.
type cell struct {
	side *side
	path string
	test string
}

// key names a cell in the report.
type key struct {
	Side, Path, Test string
	Services         int
}

// cells lists what is measured with n Services.
func (b *bench) cells(n int) []cell {
	var out []cell
	for _, s := range b.sides {
		if !b.side(s.name) {
			continue
		}
		for _, path := range b.paths {
			if !slices.Contains(waysOf[s.name], path) {
				continue
			}
			for _, test := range b.tests {
				if c := (cell{s, path, test}); b.due(c, n) {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

// due keeps a run short: what cannot depend on the number of Services is measured with the fewest
// only, and what hardly does with the fewest and the most.
func (b *bench) due(c cell, n int) bool {
	fewest, most := n == b.sizes[0], n == b.sizes[len(b.sizes)-1]
	switch {
	case c.side.name == spliced && c.test == "udp":
		return false // there are no connections to splice
	case c.side.name == loopback, c.side.name == open, c.side.name == spliced, c.path == toPod6, c.path == toService6, c.path == toNode:
		return fewest
	case c.path == toNodeService:
		return fewest || most && c.test == "crr"
	case c.test == "udp", c.test == "stream":
		return fewest || most
	default:
		return true
	}
}

// packets measures every cell once in every round, in random order.
func (b *bench) packets(ctx context.Context, n int) error {
	cells := b.cells(n)
	return b.paused(nil, func() error {
		for round := range b.rounds {
			order := slices.Clone(cells)
			rand.Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
			for _, c := range order {
				s, err := b.once(ctx, c)
				if err != nil {
					return fmt.Errorf("%s, %s, %s: %w", c.side.name, c.path, c.test, err)
				}
				b.report.add(key{c.side.name, c.path, c.test, n}, s)
			}
			progress("%d Services, round %d of %d: %d measurements", n, round+1, b.rounds, len(order))
		}
		return nil
	})
}

func (b *bench) once(ctx context.Context, c cell) (sample, error) {
	ns, cgroup, address, port := b.way(c)
	server := c.side.servers[c.test]
	switch c.path {
	case toPod6, toService6:
		server = c.side.servers6[c.test]
	case toNode, toNodeService:
		server = c.side.farServers[c.test]
	}
	return b.load.client(ctx, ns, cgroup, portsOf(c.path), c.test, address, port, b.seconds, server)
}

// portsOf gives each path source ports of its own; see netload.c. The paths between nodes end in another pod than those
// of IPv6 and are of the other family: they can have the same.
func portsOf(path string) string {
	const first, each = 10240, 9000
	switch path {
	case toNode:
		path = toPod6
	case toNodeService:
		path = toService6
	}
	low := first + each*slices.Index(allPaths, path)
	return fmt.Sprintf("%d-%d", low, low+each-1)
}

// way is from where to where a cell sends.
func (b *bench) way(c cell) (from *cluster.Namespace, cgroup, address string, port int32) {
	s, port := c.side, loads[c.test].port+c.side.shift
	switch c.path {
	case toService:
		return s.pods[clientPod], s.podCgroup, b.target.clusterIP, port
	case toPod6:
		return s.pods[clientPod], s.podCgroup, s.ips6[serverPod], port
	case toService6:
		return s.pods[clientPod], s.podCgroup, b.target6.clusterIP, port
	case toNode:
		return s.pods[clientPod], s.podCgroup, s.ips[farPod], port
	case toNodeService:
		return s.pods[clientPod], s.podCgroup, b.distant.clusterIP, port
	case fromHost:
		if s.process == nil { // knows no Services
			return s.node, s.cgroup, s.ips[serverPod], port
		}
		return s.node, s.cgroup, b.target.clusterIP, port
	case toNodePort:
		return b.outside, "", s.nodeIP, b.target.nodePorts[c.test]
	default:
		return s.pods[clientPod], s.podCgroup, s.ips[serverPod], port
	}
}
