// Command net measures what the way of a packet costs: ours, and upstream's kube-proxy
// in both of its modes, on the same machine, with the same Services of the same API
// server, in turns.
//
// The sides, each with a client and a server in network namespaces of their own:
//
//	loopback   client and server in one namespace: the least there can be
//	routed     two veth pairs and a router between them, without any filter
//	nftables   the same, with kube-proxy --proxy-mode nftables in the router
//	iptables   the same, with kube-proxy --proxy-mode iptables in the router
//	bothy      two pods of a node as `bothy up` makes it, under a NetworkPolicy
//
//	bothy-open    the same without a NetworkPolicy
//	bothy-splice  the pods of bothy, with connections that bypass the TCP stack
//
// The paths on each side:
//
//	pod        from the client's pod to the server's address
//	service    from the client's pod to a ClusterIP
//	host       from a process of the node to a ClusterIP (socket level in bothy)
//	nodeport   from outside to a node port
//	pod6, service6  the first two with IPv6
//	node       from the client's pod to a pod of another node on the same link
//	nodeservice  from the client's pod to a ClusterIP whose endpoint is that pod
//
// The second node is a worker of ours, or a second router; a bridge of this machine joins either pair. With
// -encapsulate all pairs wrap what they send each other in vxlan.
//
// The metric is CPU time per operation of client and server together, both pinned to
// one CPU: it hardly depends on what else the machine does. Every round measures
// everything once in random order, and ratios are taken within a round. kube-proxy is
// stopped (SIGSTOP) while packets are measured; its rules stay in force.
//
// Run it with `make bench-net`, on a machine that does nothing else. It needs root.
//
// Map: options.go, bench.go (the order of things), ours.go and peer.go (the sides),
// router.go (namespaces), far.go (second nodes), netload.go and netload/ (load), objects.go (Services), packets.go,
// effect.go, scale.go (what is measured), budgets.go and report.go.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	o, err := parseOptions()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// progress is for who watches.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}
