package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// bench is all sides with the same Services.
type bench struct {
	options
	site    *site
	load    netload
	sides   []*side
	outside *cluster.Namespace // this machine's
	target  target
	target6 target
	distant target // behind it is a pod of another node
	moving  string // address
	fillers int
	report  *report
}

func run(ctx context.Context, o options) (err error) {
	paths, err := cluster.FindPaths()
	if err != nil {
		return err
	}
	if why := paths.Missing(); why != "" {
		return errors.New(why)
	}
	if o.json == "" {
		o.json = filepath.Join(paths.Root, "build", "bench-net.json")
	}
	dir := filepath.Join(paths.Runs, "bench-net")
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("%s is there from an earlier run: remove it with hack/clean-runs.sh", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if err == nil { // else the logs are of use
			err = os.RemoveAll(dir)
		}
	}()
	b := &bench{
		options: o, report: newReport(o),
		load: netload{path: filepath.Join(paths.Root, "build", "peers", "netload"), cpu: strconv.Itoa(o.cpu)},
	}
	defer func() { err = errors.Join(err, b.end(context.WithoutCancel(ctx))) }()
	if err := b.begin(ctx, paths, dir); err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		b.report.print(os.Stderr) // what there is of it took its time
		return err
	}
	b.report.print(os.Stdout)
	if err := b.report.save(o.json); err != nil {
		return err
	}
	if o.write {
		return b.report.writeTo(filepath.Join(paths.Root, "docs", "measurements-network.md"))
	}
	return nil
}

// begin makes the sides, all with the pods' addresses on our node.
func (b *bench) begin(ctx context.Context, paths cluster.Paths, dir string) (err error) {
	if b.outside, err = cluster.HostNamespace(); err != nil {
		return err
	}
	if b.site, err = startSite(ctx, paths, dir, b.options); err != nil {
		return err
	}
	if err := b.site.createPods(ctx); err != nil {
		return err
	}
	our, err := b.site.side(ctx)
	if err != nil {
		return err
	}
	b.sides = append(b.sides, our) // the API is its own, measured or not
	if b.side(loopback) {
		s, err := newLoopback()
		if err != nil {
			return err
		}
		b.sides = append(b.sides, s)
	}
	if b.side(open) {
		s, err := b.site.openSide(ctx)
		if err != nil {
			return err
		}
		b.sides = append(b.sides, s)
	}
	if b.side(spliced) {
		s, err := b.site.splicedSide(our)
		if err != nil {
			return err
		}
		b.sides = append(b.sides, s)
	}
	for _, name := range []string{routed, nftables, iptables} {
		if !b.side(name) {
			continue
		}
		ips6 := our.ips6
		if name != routed { // kube-proxy is measured with IPv4
			ips6 = nil
		}
		s, err := newRouter(name, peerIndex[name], our.ips, ips6)
		if err != nil {
			return err
		}
		b.sides = append(b.sides, s)
		if b.far() {
			if err := s.addFarNode(peerIndex[name], b.encapsulate); err != nil {
				return fmt.Errorf("make the second node of %s: %w", name, err)
			}
		}
		if name != routed {
			if err := startPeer(ctx, b.site, s, name, dir); err != nil {
				return err
			}
		}
	}
	for _, s := range b.sides {
		if err := b.load.startServers(s); err != nil {
			return fmt.Errorf("start the servers of %s: %w", s.name, err)
		}
	}
	if b.far() {
		if b.distant, err = b.site.createTarget(ctx, measuredFar, our.ips[farPod]); err != nil {
			return err
		}
	}
	if b.target, err = b.site.createTarget(ctx, measured, our.ips[serverPod]); err != nil {
		return err
	}
	if b.target6, err = b.site.createTarget(ctx, measured6, our.ips6[serverPod]); err != nil {
		return err
	}
	b.moving, err = b.site.createSimple(ctx, moving, loads["crr"].port, []string{our.ips[serverPod]})
	return err
}

func (b *bench) end(ctx context.Context) error {
	var errs []error
	for _, s := range b.sides {
		errs = append(errs, s.end())
	}
	if b.outside != nil {
		errs = append(errs, b.outside.Close())
	}
	if b.site != nil {
		errs = append(errs, b.site.node.Stop(ctx, true))
	}
	return errors.Join(errs...)
}

func (b *bench) measure(ctx context.Context) error {
	for _, n := range b.sizes {
		if err := b.grow(ctx, n); err != nil {
			return fmt.Errorf("make %d Services: %w", n, err)
		}
		if err := b.memory(n, 1); err != nil {
			return err
		}
		if b.options.measure("packets") {
			if err := b.packets(ctx, n); err != nil {
				return fmt.Errorf("with %d Services: %w", n, err)
			}
		}
		if b.options.measure("effect") {
			if err := b.effects(ctx, n); err != nil {
				return fmt.Errorf("with %d Services: %w", n, err)
			}
		}
	}
	if b.options.measure("scale") {
		return b.scale(ctx)
	}
	return nil
}

// grow makes Services until there are n besides those that are measured, and waits until
// they are in force everywhere.
func (b *bench) grow(ctx context.Context, n int) error {
	start := time.Now()
	// kube-proxy would write its rules over and over meanwhile.
	if err := b.paused(nil, func() error { return b.site.fill(ctx, b.fillers, n) }); err != nil {
		return err
	}
	b.fillers = max(n, b.fillers)
	made := time.Since(start)
	// What was made last is in force last.
	last := fmt.Sprintf("sentinel-%d", n)
	ip, err := b.site.createSimple(ctx, last, loads["crr"].port, []string{b.our().ips[otherPod]})
	if err != nil {
		return err
	}
	for _, s := range b.proxied() {
		for _, address := range []string{ip, b.target.clusterIP, b.moving} {
			if err := s.answers(ctx, address); err != nil {
				return err
			}
		}
		progress("%-9s %d Services made in %.1f s, in force %.1f s after", s.name, n, made.Seconds(), time.Since(start).Seconds()-made.Seconds())
	}
	return nil
}

// answers waits until an address is balanced.
func (s *side) answers(ctx context.Context, ip string) error {
	address := net.JoinHostPort(ip, strconv.Itoa(int(loads["crr"].port)))
	return cluster.Poll(ctx, 10*time.Minute, s.name+" to balance "+address, func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		conn, err := s.pods[clientPod].Dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (b *bench) our() *side { return b.sides[0] }

// proxied are the sides that know Services.
func (b *bench) proxied() []*side {
	return slices.DeleteFunc(slices.Clone(b.sides), func(s *side) bool { return s.process == nil })
}

// paused runs f while nobody but the one given, or nobody at all, changes rules.
func (b *bench) paused(but *side, f func() error) (err error) {
	for _, s := range b.sides {
		if s == but || s.pause == nil {
			continue
		}
		if err := s.pause(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.resume()) }()
	}
	return f()
}
