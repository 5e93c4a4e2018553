package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/internal/supervise"
)

// progress shows a node coming up: on a terminal a few lines that are redrawn,
// elsewhere one line for each thing that becomes ready or fails.
type progress struct {
	out     *os.File
	style   style
	live    bool
	started time.Time
	drawn   int
	// prefix tells lines of several nodes apart.
	prefix string
	// said remembers what was printed, by component or milestone.
	said map[string]string
}

func newProgress(out *os.File, started time.Time) *progress {
	return &progress{out: out, style: styleFor(out), live: isTerminal(out), started: started, said: map[string]string{}}
}

func (p *progress) show(st *agent.Status) {
	if p.live {
		p.redraw(st)
		return
	}
	for _, line := range p.news(st) {
		fmt.Fprintf(p.out, "%7.2fs  %s%s\n", time.Since(p.started).Seconds(), p.prefix, line)
	}
}

// news returns what changed since it was last called.
func (p *progress) news(st *agent.Status) []string {
	var out []string
	tell := func(key, text string) {
		if p.said[key] != text {
			p.said[key] = text
			out = append(out, text)
		}
	}
	for _, c := range st.Components {
		switch c.State {
		case supervise.Ready, supervise.Done:
			tell(c.Process+"/"+c.Name, fmt.Sprintf("%s ready", c.Name))
		case supervise.Backoff, supervise.Failed:
			tell(c.Process+"/"+c.Name, fmt.Sprintf("%s failed: %s", c.Name, c.LastError))
		}
	}
	if a := st.Git.Accepted; a != nil {
		tell("accepted", fmt.Sprintf("commit %s accepted, signed by %s", short(a.Commit), a.Signer))
	}
	if e := st.Git.Source.LastError; e != "" {
		tell("source", "repository: "+e)
	}
	if st.Node.Ready {
		tell("node", "node Ready")
	}
	if o := st.Git.Objects; o.Total > 0 {
		tell("objects", fmt.Sprintf("workloads: %d of %d objects ready", o.Ready, o.Total))
	}
	return out
}

func (p *progress) redraw(st *agent.Status) {
	width, _, err := term.GetSize(int(p.out.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	var lines []string
	if p.prefix != "" {
		lines = append(lines, p.prefix)
	}
	for _, c := range st.Components {
		lines = append(lines, p.componentLine(c))
	}
	lines = append(lines, p.gitLine(st))
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, l := range lines {
		b.WriteString("\r" + cut(l, width-1) + "\x1b[0m\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	fmt.Fprint(p.out, b.String())
	p.drawn = len(lines)
}

func (p *progress) componentLine(c agent.ComponentStatus) string {
	mark, detail := p.style.dim("·"), ""
	switch c.State {
	case supervise.Ready, supervise.Done:
		mark, detail = p.style.good("✓"), p.style.dim(fmt.Sprintf("%.2f s", c.StartTook.Seconds()))
	case supervise.Starting:
		mark, detail = p.style.warn("▸"), p.style.dim(fmt.Sprintf("%.1f s", time.Since(c.Since).Seconds()))
	case supervise.Waiting:
		detail = p.style.dim("after " + strings.Join(c.WaitingFor, ", "))
	case supervise.Backoff, supervise.Failed:
		mark, detail = p.style.bad("✗"), c.LastError
	}
	return fmt.Sprintf("  %s %-26s %s", mark, c.Name, detail)
}

func (p *progress) gitLine(st *agent.Status) string {
	text := "waiting for the repository"
	if a := st.Git.Accepted; a != nil {
		text = fmt.Sprintf("commit %s by %s", short(a.Commit), a.Signer)
		if o := st.Git.Objects; o.Total > 0 {
			text += fmt.Sprintf(", %d of %d objects ready", o.Ready, o.Total)
		}
	} else if e := st.Git.Source.LastError; e != "" {
		text = p.style.bad(e)
	}
	return fmt.Sprintf("%6.1fs  %s", time.Since(p.started).Seconds(), text)
}

// close leaves the last picture on the screen.
func (p *progress) close() { p.drawn = 0 }

// cut shortens a line to width visible characters; escape sequences do not
// count.
func cut(s string, width int) string {
	visible, escape := 0, false
	for i, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		case visible == width:
			return s[:i]
		default:
			visible++
		}
	}
	return s
}
