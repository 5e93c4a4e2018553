package machine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// state is what somebody in front of the machine wants to know.
type state struct {
	version, name, address string
	// doing is where the machine is; problem is what keeps it there, next what to do
	// about it.
	doing, problem, next string
	commit, urls         string
	// settings is what becomes of those of the repository, where it is not plain.
	settings string
	// system is which operating system it runs, and what becomes of that.
	system string
	// disk says that the data partition has no room, and is empty otherwise.
	disk string
	// bundles is what becomes of those that somebody brought.
	bundles string
}

// screen shows the state on every console.
type screen struct {
	mu    sync.Mutex
	state state
	dirty chan struct{}
}

func newScreen(release map[string]string) *screen {
	return &screen{state: state{version: release["PRETTY_NAME"], doing: "starting"}, dirty: make(chan struct{}, 1)}
}

// set changes the state.
func (s *screen) set(change func(*state)) {
	s.mu.Lock()
	before := s.state
	change(&s.state)
	changed := s.state != before
	s.mu.Unlock()
	if changed {
		select {
		case s.dirty <- struct{}{}:
		default:
		}
	}
}

// calm is the least time between two pictures.
const calm = time.Second

// show draws whenever something has changed.
func (s *screen) show(ctx context.Context) {
	for {
		s.mu.Lock()
		now := s.state
		s.mu.Unlock()
		for _, c := range consoles() {
			draw(c, &now)
		}
		select {
		case <-s.dirty:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(calm):
		case <-ctx.Done():
			return
		}
	}
}

// consoles are those the kernel prints on.
func consoles() []string {
	data, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

// draw writes to one console: over what was there on a screen, and below it on a line that
// somebody may record.
func draw(console string, s *state) {
	text := s.text()
	if strings.HasPrefix(console, "tty") && !strings.HasPrefix(console, "ttyS") {
		text = "\x1b[2J\x1b[H" + text
	}
	f, err := os.OpenFile("/dev/"+console, os.O_WRONLY, 0)
	if err != nil {
		return // no such hardware
	}
	defer f.Close()
	_, _ = f.WriteString(strings.ReplaceAll(text, "\n", "\r\n")) // nobody may be there
}

func (s *state) text() string {
	var b strings.Builder
	b.WriteString("\n")
	for _, line := range []struct{ what, value string }{
		{"", s.version},
		{"name", s.name},
		{"address", s.address},
		{"state", s.doing},
		{"commit", s.commit},
		{"system", s.system},
		{"answers", s.urls},
		{"settings", s.settings},
		{"disk", s.disk},
		{"bundles", s.bundles},
		{"problem", s.problem},
		{"next", s.next},
	} {
		if line.value != "" {
			fmt.Fprintf(&b, "  %-8s  %s\n", line.what, printable(line.value))
		}
	}
	return b.String()
}

// printable keeps what came from the network from controlling the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
