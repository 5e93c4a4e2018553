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

// cells lists what there is: a side that knows no Services has direct paths only.
func (b *bench) cells() []cell {
	var out []cell
	for _, s := range b.sides {
		if !b.side(s.name) {
			continue
		}
		for _, path := range b.paths {
			if s.name == loopback && path != toPod || s.name == routed && path != toPod && path != fromHost {
				continue
			}
			for _, test := range b.tests {
				out = append(out, cell{s, path, test})
			}
		}
	}
	return out
}

// packets measures every cell once in every round, in random order.
func (b *bench) packets(ctx context.Context, n int) error {
	cells := b.cells()
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
	return b.load.client(ctx, ns, cgroup, c.test, address, port, b.seconds, c.side.servers[c.test])
}

// way is from where to where a cell sends.
func (b *bench) way(c cell) (from *cluster.Namespace, cgroup, address string, port int32) {
	s, port := c.side, loads[c.test].port
	switch c.path {
	case toService:
		return s.pods[clientPod], "", b.target.clusterIP, port
	case fromHost:
		if s.process == nil { // knows no Services
			return s.node, s.cgroup, s.ips[serverPod], port
		}
		return s.node, s.cgroup, b.target.clusterIP, port
	case toNodePort:
		return b.outside, "", s.nodeIP, b.target.nodePorts[c.test]
	default:
		return s.pods[clientPod], "", s.ips[serverPod], port
	}
}
