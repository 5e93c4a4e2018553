package apply_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/internal/fakeapi"
)

// manyObjects are n ConfigMaps of about size bytes.
func manyObjects(n, size int) []*unstructured.Unstructured {
	out := make([]*unstructured.Unstructured, n)
	for i := range out {
		out[i] = &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": fmt.Sprintf("object-%d", i), "namespace": "default"},
			"data":     map[string]any{"text": strings.Repeat(fmt.Sprintf("%08d", i), size/8)},
		}}
	}
	return out
}

func benchEngine(b *testing.B, objects []*unstructured.Unstructured) *apply.Engine {
	b.Helper()
	client, err := apply.Connect(fakeapi.New(b).Kubeconfig(b))
	if err != nil {
		b.Fatal(err)
	}
	hub := apply.NewHub(client, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- hub.Run(ctx) }()
	e := apply.NewEngine(client, apply.Options{
		Name: "site", Store: apply.ConfigMapStore(client, "site"), Hub: hub, Prune: true, Wait: true, Log: slog.New(slog.DiscardHandler),
	})
	b.Cleanup(func() {
		e.Close()
		cancel()
		<-done
	})
	if err := e.Set(apply.Desired{Commit: "1", Objects: objects}); err != nil {
		b.Fatal(err)
	}
	if _, err := e.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
	return e
}

// BenchmarkIdleSync is a pass in which nothing is to be done.
func BenchmarkIdleSync(b *testing.B) {
	e := benchEngine(b, manyObjects(2000, 2048))
	b.ReportAllocs()
	for b.Loop() {
		if pass, err := e.Sync(context.Background()); err != nil || pass.Sent > 0 {
			b.Fatalf("%+v, %v", pass, err)
		}
		if _, err := e.Health(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSet is a commit that changes nothing of 2000 objects of 2 KiB.
func BenchmarkSet(b *testing.B) {
	objects := manyObjects(2000, 2048)
	e := benchEngine(b, objects)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Set(apply.Desired{Commit: "1", Objects: objects}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHeld reports what an engine and the hub hold of 2000 objects of
// 2 KiB.
func BenchmarkHeld(b *testing.B) {
	for b.Loop() {
		objects := manyObjects(2000, 2048)
		server := fakeapi.New(b)
		client, err := apply.Connect(server.Kubeconfig(b))
		if err != nil {
			b.Fatal(err)
		}
		hub := apply.NewHub(client, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- hub.Run(ctx) }()
		e := apply.NewEngine(client, apply.Options{Name: "site", Store: apply.ConfigMapStore(client, "site"), Hub: hub, Wait: true})
		if err := e.Set(apply.Desired{Commit: "1", Objects: objects}); err != nil {
			b.Fatal(err)
		}
		if _, err := e.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
		poll, deadline := time.NewTicker(time.Millisecond), time.After(time.Minute)
		for hub.Stats().Objects < len(objects) {
			select {
			case <-poll.C:
			case <-deadline:
				b.Fatalf("the hub sees %d of %d objects after a minute", hub.Stats().Objects, len(objects))
			}
		}
		poll.Stop()
		with := heap()
		e.Close()
		cancel()
		<-done
		runtime.KeepAlive(e)
		runtime.KeepAlive(hub)
		b.ReportMetric(float64(with-heap())/float64(len(objects)), "B/object")
		runtime.KeepAlive(server)
		runtime.KeepAlive(objects)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkManyEngines applies 500 sets of 4 new objects, a few at once.
func BenchmarkManyEngines(b *testing.B) {
	for b.Loop() {
		client, err := apply.Connect(fakeapi.New(b).Kubeconfig(b))
		if err != nil {
			b.Fatal(err)
		}
		hub := apply.NewHub(client, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- hub.Run(ctx) }()
		began := time.Now()
		work := make(chan int)
		failed := make(chan error, 4)
		for range 4 {
			go func() { failed <- applySets(client, hub, work) }()
		}
		for i := range 500 {
			work <- i
		}
		close(work)
		for range 4 {
			if err := <-failed; err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/500-sets")
		cancel()
		<-done
	}
}

// memory keeps an inventory in memory.
type memory struct{ record apply.Record }

func (m *memory) Load(context.Context) (apply.Record, error)   { return m.record, nil }
func (m *memory) Save(_ context.Context, r apply.Record) error { m.record = r; return nil }

func applySets(client *apply.Client, hub *apply.Hub, work <-chan int) error {
	for i := range work {
		objects := manyObjects(4, 256)
		for j, u := range objects {
			u.SetName(fmt.Sprintf("s%d-%d", i, j))
		}
		e := apply.NewEngine(client, apply.Options{Name: "kustomization", Store: &memory{}, Hub: hub})
		if err := e.Set(apply.Desired{Objects: objects}); err != nil {
			return err
		}
		if pass, err := e.Sync(context.Background()); err != nil || len(pass.Failures) > 0 {
			return fmt.Errorf("%+v, %w", pass, err)
		}
	}
	return nil
}
