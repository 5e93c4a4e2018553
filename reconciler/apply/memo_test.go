package apply_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/apply"
)

// process is one run of an engine with a hub that remembers in a file.
func (c *cluster) process(file string, do func(*apply.Engine)) (applied []string) {
	c.t.Helper()
	hub := apply.NewHub(c.client, slog.New(slog.DiscardHandler))
	hub.RememberIn(file)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- hub.Run(ctx) }()
	c.options.Hub = hub
	c.restart()
	c.TakeRequests()
	do(c.engine)
	c.engine.Close()
	cancel()
	if err := <-done; err != nil {
		c.t.Error(err)
	}
	for _, r := range c.TakeRequests() {
		if path, ok := strings.CutPrefix(r, "PATCH "); ok {
			applied = append(applied, path[strings.LastIndex(path, "/")+1:])
		}
	}
	slices.Sort(applied)
	return applied
}

func TestARestartSendsOnlyWhatIsNotThere(t *testing.T) {
	c := newCluster(t)
	file := filepath.Join(t.TempDir(), "applied")
	docs := []string{configMap("a", "1"), configMap("b", "1"), configMap("c", "1"), deployment}
	first := func(e *apply.Engine) {
		c.set("1", docs...)
		c.sync()
		e.AgeMemo(time.Minute)
	}
	if got := c.process(file, first); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Fatalf("the first process applied %v", got)
	}
	if got := c.process(file, first); len(got) != 0 {
		t.Errorf("a restart applied %v", got)
	}

	// What happened while nobody looked is noticed.
	c.Edit(cmA, "hand", func(u *unstructured.Unstructured) { u.Object["data"] = map[string]any{"k": "foreign"} })
	c.Delete(cmB)
	c.SetReady("d", false)
	var summary apply.Summary
	got := c.process(file, func(e *apply.Engine) {
		first(e)
		var err error
		if summary, err = e.Health(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("after changes by others, a restart applied %v", got)
	}
	if len(summary.Pending) != 1 || summary.Ready != 3 {
		t.Errorf("the health after a restart: %+v", summary)
	}

	// So is another commit, and one that goes back.
	docs[2] = configMap("c", "2")
	if got := c.process(file, first); !slices.Equal(got, []string{"c"}) {
		t.Errorf("a new commit applied %v", got)
	}
	docs[2] = configMap("c", "1")
	if got := c.process(file, first); !slices.Equal(got, []string{"c"}) {
		t.Errorf("going back applied %v", got)
	}
}

// TestWhatWasJustSentIsNotRelied on: two applies within a second look alike.
func TestWhatWasJustSentIsSentAgain(t *testing.T) {
	c := newCluster(t)
	file := filepath.Join(t.TempDir(), "applied")
	work := func(*apply.Engine) {
		c.set("1", configMap("a", "1"))
		c.sync()
	}
	c.process(file, work)
	if got := c.process(file, work); !slices.Equal(got, []string{"a"}) {
		t.Errorf("applied %v", got)
	}
}

func TestADamagedMemoIsIgnored(t *testing.T) {
	c := newCluster(t)
	file := filepath.Join(t.TempDir(), "applied")
	work := func(e *apply.Engine) {
		c.set("1", configMap("a", "1"))
		c.sync()
		e.AgeMemo(time.Minute)
	}
	c.process(file, work)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string][]byte{
		"truncated": text[:len(text)-1], "empty": nil, "foreign": []byte("something else entirely, which is longer than a checksum and the magic"),
		"flipped": bytes.Replace(bytes.Clone(text), text[20:21], []byte{text[20] ^ 1}, 1),
	} {
		if err := os.WriteFile(file, damage, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := c.process(file, work); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%s: applied %v", name, got)
		}
	}
}
