package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bothy-os/bothy/test/bench/internal/procfs"
	"github.com/bothy-os/bothy/test/cluster"
)

// memory notes what the sides hold with n Services.
func (b *bench) memory(n, backends int) error {
	f := memoryFigures{Services: n, Backends: n * backends, RSS: map[string]float64{}, PSS: map[string]float64{}}
	for _, s := range b.proxied() {
		pid, err := s.process()
		if err != nil {
			return err
		}
		u, err := procfs.UsageOf(pid)
		if err != nil {
			return fmt.Errorf("memory of %s: %w", s.name, err)
		}
		f.RSS[s.name], f.PSS[s.name] = float64(u.RSS)/1e6, float64(u.PSS)/1e6
	}
	tables, err := b.site.node.Tables()
	if err != nil {
		return err
	}
	f.Tables = tables
	b.report.Memory = append(b.report.Memory, f)
	return nil
}

// scale measures how long our node needs for everything at once, when it starts with
// empty tables: the node is taken down and started again on the same state.
func (b *bench) scale(ctx context.Context) error {
	start := time.Now()
	err := b.paused(nil, func() error {
		if err := b.site.fill(ctx, b.fillers, b.services); err != nil {
			return err
		}
		b.fillers = max(b.fillers, b.services)
		return forAll(b.services, func(i int) error {
			return b.site.setBackends(ctx, fillerName(i), fillerPort, fillerBackends(i, b.backends))
		})
	})
	if err != nil {
		return err
	}
	progress("%d Services with %d endpoints each made in %.1f s", b.services, b.backends, time.Since(start).Seconds())
	// The sides end here: their namespaces are those of pods that go.
	for _, s := range b.sides {
		if err := s.end(); err != nil {
			return err
		}
	}
	b.sides = nil
	if err := b.site.node.Stop(ctx, false); err != nil {
		return err
	}
	restart := time.Now()
	if err := b.site.start(ctx); err != nil {
		return err
	}
	entry, took, err := b.site.inForce(ctx, restart)
	if err != nil {
		return err
	}
	b.report.Scale = &scaleFigures{
		Services: entry.Services, Backends: entry.Backends,
		Tables: took.Seconds(), Start: entry.Time.Sub(restart).Seconds(),
	}
	progress("%d Services with %d endpoints: tables written in %.3f s, %.2f s after the start of bothy up",
		entry.Services, entry.Backends, took.Seconds(), b.report.Scale.Start)
	our, err := b.site.side(ctx)
	if err != nil {
		return err
	}
	b.sides = []*side{our}
	return b.memory(b.services, b.backends)
}

// logEntry is what the agent says when it has written all Services for the first time.
type logEntry struct {
	Time               time.Time
	Msg                string
	Services, Backends int
	Took               string
}

// inForce waits for that entry.
func (s *site) inForce(ctx context.Context, since time.Time) (entry logEntry, took time.Duration, err error) {
	err = cluster.Poll(ctx, patience, "the agent to have written all Services", func() error {
		log, err := os.Open(filepath.Join(s.node.State, "logs", "agent.log"))
		if err != nil {
			return err
		}
		defer log.Close()
		lines := bufio.NewScanner(log)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
				return fmt.Errorf("decode %q: %w", lines.Text(), err)
			}
			if entry.Msg == "services in force" && entry.Time.After(since) {
				took, err = time.ParseDuration(entry.Took)
				return err
			}
			entry = logEntry{}
		}
		return errors.Join(errors.New("it does not say so yet"), lines.Err())
	})
	return entry, took, err
}
