package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/test/bench/internal/procfs"
)

// idleFigures are what processes used in a window in which nothing changed.
type idleFigures struct {
	Window   time.Duration
	Interval time.Duration
	// CPU is in per cent of a core, Written in bytes per hour, RSS and PSS in
	// bytes; by process.
	CPU, Written, RSS, PSS map[string]float64
	// Reads and Writes are API requests per minute, from whomever.
	Reads, Writes float64
}

func (c *comparison) idleEmpty(ctx context.Context) error {
	f, err := c.idle(ctx, nil, 0, c.options.window)
	if err == nil {
		c.report.idle("empty", f)
	}
	return err
}

// compareIdle has one side after the other hold its Kustomizations, alone.
func (c *comparison) compareIdle(ctx context.Context) error {
	n := c.options.idleSize
	revision, err := c.fill(ctx, n)
	if err != nil {
		return err
	}
	for _, s := range c.sides {
		for _, interval := range []time.Duration{time.Minute, 10 * time.Minute} {
			if interval > time.Minute && !c.options.measure("idle") {
				continue
			}
			if err := s.create(ctx, n, interval); err != nil {
				return err
			}
			if _, err := lastOf(ctx, s.kustomizations, s.kustomizations.expect(s.names(), readyAt(revision))); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if c.options.measure("drift") && interval == time.Minute {
				if err := c.drifts(ctx, s, interval); err != nil {
					return err
				}
			}
			if c.options.measure("idle") {
				window := c.options.window
				if interval > time.Minute {
					window = c.options.long
				}
				f, err := c.idle(ctx, s, interval, window)
				if err != nil {
					return err
				}
				c.report.idle(s.name, f)
			}
			if err := s.remove(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// idle watches the node's processes, and the side's own, for a while.
func (c *comparison) idle(ctx context.Context, s *side, interval, window time.Duration) (idleFigures, error) {
	f := idleFigures{Window: window, Interval: interval}
	who := "nobody"
	if s != nil {
		who = s.name
	}
	progress("%-6s idle with interval %s: %s to settle, %s to watch", who, interval, c.options.settle, window)
	if err := wait(ctx, c.options.settle); err != nil {
		return f, err
	}
	before, err := c.look(ctx, s)
	if err != nil {
		return f, err
	}
	if err := wait(ctx, window); err != nil {
		return f, err
	}
	after, err := c.look(ctx, s)
	if err != nil {
		return f, err
	}
	took := after.at.Sub(before.at)
	f.CPU, f.Written, f.RSS, f.PSS = map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}
	for name, now := range after.processes {
		was, ok := before.processes[name]
		if !ok {
			return f, fmt.Errorf("process %s has begun during the measurement", name)
		}
		f.CPU[name] = 100 * (now.CPU - was.CPU).Seconds() / took.Seconds()
		f.Written[name] = float64(now.Written-was.Written) / took.Hours()
		f.RSS[name], f.PSS[name] = float64(now.RSS), float64(now.PSS)
	}
	f.Reads = float64(after.reads-before.reads) / took.Minutes()
	f.Writes = float64(after.writes-before.writes) / took.Minutes()
	return f, nil
}

// moment is what processes have used so far, and the API server has answered.
type moment struct {
	at            time.Time
	processes     map[string]procfs.Usage
	reads, writes int64
}

func (c *comparison) look(ctx context.Context, s *side) (moment, error) {
	m := moment{processes: map[string]procfs.Usage{}}
	pids := map[int]string{}
	for _, verb := range []string{"agent", "kube"} {
		p, err := c.node.Process(verb)
		if err != nil {
			return m, err
		}
		pids[p.PID] = "bothy " + verb
	}
	if s != nil {
		own, err := s.pids()
		if err != nil {
			return m, err
		}
		maps.Copy(pids, own)
	}
	var err error
	if m.reads, m.writes, err = c.requests(ctx); err != nil {
		return m, err
	}
	m.at = time.Now()
	for pid, name := range pids {
		if m.processes[name], err = procfs.UsageOf(pid); err != nil {
			return m, fmt.Errorf("look at %s: %w", name, err)
		}
	}
	return m, nil
}

// requests counts what the API server has answered so far. Watches are neither.
func (c *comparison) requests(ctx context.Context) (reads, writes int64, err error) {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return 0, 0, err
	}
	text, err := client.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("read the API server's metrics: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line, ok := strings.CutPrefix(lines.Text(), "apiserver_request_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(line, "} ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("unexpected line %q in the API server's metrics", lines.Text())
		}
		switch verb(labels) {
		case "GET", "LIST":
			reads += int64(n)
		case "POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION":
			writes += int64(n)
		}
	}
	return reads, writes, lines.Err()
}

func verb(labels string) string {
	_, rest, _ := strings.Cut(labels, `verb="`)
	out, _, _ := strings.Cut(rest, `"`)
	return out
}
