package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// witness watches the ConfigMaps of the rounds and remembers what must never
// happen, however short it lasts: that something is deleted that a commit which
// may be the newest wants, that something deleted comes back, and that something
// goes back to what an older commit said.
type witness struct {
	site *site

	mu      sync.Mutex
	seen    int
	round   map[string]int
	deleted map[string]bool
	// expected deletions are the test's own.
	expected map[string]int
	wrongs   []string
	err      error
}

// watch begins to watch and ends with the test.
func watch(t *testing.T, s *site) *witness {
	t.Helper()
	w := &witness{site: s, round: map[string]int{}, deleted: map[string]bool{}, expected: map[string]int{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := s.kube.Command(ctx, "get", "configmaps", "-l", selector, "--watch", "--output-watch-events", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.follow(ctx, out)
		_ = cmd.Wait() // it was killed, or follow has said what was wrong
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *witness) follow(ctx context.Context, in io.Reader) {
	decoder := json.NewDecoder(in)
	for {
		var event struct {
			Type   string    `json:"type"`
			Object configMap `json:"object"`
		}
		if err := decoder.Decode(&event); err != nil {
			if ctx.Err() == nil {
				w.mu.Lock()
				w.err = fmt.Errorf("the watch ended: %w", err)
				w.mu.Unlock()
			}
			return
		}
		w.note(event.Type, event.Object)
	}
}

func (w *witness) note(event string, c configMap) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	name := c.Metadata.Name
	content, err := strconv.Atoi(c.Data.Round)
	if err != nil {
		w.wrongs = append(w.wrongs, fmt.Sprintf("%s has the content %q", name, c.Data.Round))
		return
	}
	newest := w.site.newest()
	switch {
	case event == "DELETED" && w.expected[name] > 0:
		w.expected[name]--
	case event == "DELETED" && !mayBeDeleted(name, content, newest):
		w.wrongs = append(w.wrongs, fmt.Sprintf("%s was deleted, though no commit up to round %d leaves it out", name, newest))
	case event == "DELETED":
		w.deleted[name] = true
	case w.deleted[name]:
		w.wrongs = append(w.wrongs, name+" came back after it was deleted")
	case content < w.round[name]:
		w.wrongs = append(w.wrongs, fmt.Sprintf("%s went back from round %d to %d", name, w.round[name], content))
	}
	w.round[name] = content
}

// mayBeDeleted says whether a round up to newest does not want the object.
func mayBeDeleted(name string, content, newest int) bool {
	return strings.HasPrefix(name, "round-") && newest >= content+lifetime
}

// expects says that the test itself deletes an object, which comes back.
func (w *witness) expects(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expected[name]++
}

// check fails the test if anything went wrong, or if nothing was seen.
func (w *witness) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("witness: %d changes seen, %d ConfigMaps pruned", w.seen, len(w.deleted))
	if w.seen == 0 && w.err == nil {
		w.err = errors.New("the watch saw nothing")
	}
	if w.err != nil {
		t.Error(w.err)
	}
	for _, wrong := range w.wrongs {
		t.Error(wrong)
	}
}
