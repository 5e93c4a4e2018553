package main

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// The sides and paths; see the package comment.
const (
	loopback = "loopback"
	routed   = "routed"
	nftables = "nftables"
	iptables = "iptables"
	ours     = "bothy"
	open     = "bothy-open"
	spliced  = "bothy-splice"

	toPod      = "pod"
	toService  = "service"
	fromHost   = "host"
	toNodePort = "nodeport"
	toPod6     = "pod6"
	toService6 = "service6"

	toNode        = "node"
	toNodeService = "nodeservice"
)

// waysOf are the paths that a side has.
var waysOf = map[string][]string{
	loopback: {toPod, toPod6},
	routed:   {toPod, fromHost, toPod6, toNode},
	nftables: {toPod, toService, fromHost, toNodePort, toNode, toNodeService},
	iptables: {toPod, toService, fromHost, toNodePort, toNode, toNodeService},
	ours:     {toPod, toService, fromHost, toNodePort, toPod6, toService6, toNode, toNodeService},
	open:     {toPod},
	spliced:  {toPod, toService},
}

var (
	allSides    = []string{loopback, routed, nftables, iptables, ours, open, spliced}
	allPaths    = []string{toPod, toService, fromHost, toNodePort, toPod6, toService6, toNode, toNodeService}
	allTests    = []string{"rr", "crr", "udp", "stream"}
	allMeasures = []string{"packets", "effect", "scale"}
)

type options struct {
	measures, sides, paths, tests []string
	sizes                         []int

	rounds  int
	seconds float64
	cpu     int

	encapsulate bool

	updates            int
	services, backends int

	json  string
	write bool
}

func parseOptions() (options, error) {
	var o options
	measures := flag.String("measure", strings.Join(allMeasures, ","), "what to measure")
	sides := flag.String("sides", strings.Join(allSides, ","), "whom to measure")
	paths := flag.String("paths", strings.Join(allPaths, ","), "which ways")
	tests := flag.String("tests", strings.Join(allTests, ","), "which loads")
	sizes := flag.String("n", "1,100,1000,10000", "numbers of Services, ascending")
	short := flag.Bool("short", false, "few and short measurements, to see that they work")
	flag.IntVar(&o.rounds, "rounds", 7, "times that everything is measured, for each number of Services")
	flag.Float64Var(&o.seconds, "seconds", 0.5, "length of one measurement")
	flag.IntVar(&o.cpu, "cpu", runtime.NumCPU()-1, "the CPU that client and server share")
	flag.BoolVar(&o.encapsulate, "encapsulate", false, "have the nodes of every side wrap what they send each other")
	flag.IntVar(&o.updates, "updates", 100, "updates of an EndpointSlice, for each number of Services; a fifth of it with kube-proxy")
	flag.IntVar(&o.services, "services", 10000, "Services of the measurement of scale")
	flag.IntVar(&o.backends, "backends", 10, "endpoints of each of them")
	flag.StringVar(&o.json, "json", "", "file for the measurements (default build/bench-net.json)")
	flag.BoolVar(&o.write, "write", false, "write the report to docs/measurements-network.md")
	flag.Parse()
	for _, list := range []struct {
		name, value string
		known       []string
		into        *[]string
	}{
		{"measure", *measures, allMeasures, &o.measures},
		{"sides", *sides, allSides, &o.sides},
		{"paths", *paths, allPaths, &o.paths},
		{"tests", *tests, allTests, &o.tests},
	} {
		for _, v := range strings.Split(list.value, ",") {
			if !slices.Contains(list.known, v) {
				return o, fmt.Errorf("-%s: %q is none of %s", list.name, v, strings.Join(list.known, ", "))
			}
			*list.into = append(*list.into, v)
		}
	}
	for _, text := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || len(o.sizes) > 0 && n <= o.sizes[len(o.sizes)-1] {
			return o, fmt.Errorf("-n: %q is not a number of Services greater than the one before", text)
		}
		o.sizes = append(o.sizes, n)
	}
	if *short {
		o.sizes, o.rounds, o.seconds, o.updates, o.services = []int{1, 100}, 3, 0.1, 10, 200
	}
	return o, nil
}

func (o *options) measure(name string) bool { return slices.Contains(o.measures, name) }

// far says that something is measured between nodes.
func (o *options) far() bool {
	return o.measure("packets") && (slices.Contains(o.paths, toNode) || slices.Contains(o.paths, toNodeService))
}

func (o *options) side(name string) bool { return slices.Contains(o.sides, name) }
