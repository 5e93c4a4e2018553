package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"
)

func newLogs(o *options) *cobra.Command {
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use:     "logs [COMPONENT]",
		Short:   "Show the logs of the node's own parts",
		GroupID: "look",
		Long: `Show the logs of bothy itself, oldest first; they are kept in the state directory
and can be read when the node is down. COMPONENT is a process (agent, kube), a
wing (bootstrap, node, netdata, reconciler, kubernetes) or a component as in
` + "`bothy status`" + `. For the logs of containers use kubectl logs.`,
		Example: "  bothy logs -f reconciler\n  bothy logs kube --tail 50",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l := &logReader{dir: filepath.Join(o.state, "logs"), out: cmd.OutOrStdout(), raw: o.json(), style: styleFor(os.Stdout)}
			if len(args) > 0 {
				l.component = args[0]
			}
			return l.run(cmd, tail, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines")
	cmd.Flags().IntVar(&tail, "tail", 200, "how many of the last lines to show; 0 for all")
	return cmd
}

type logReader struct {
	dir, component string
	out            io.Writer
	raw            bool
	style          style
}

type logLine struct {
	at   time.Time
	text string
}

func (l *logReader) run(cmd *cobra.Command, tail int, follow bool) error {
	var watcher *fsnotify.Watcher
	if follow {
		var err error
		if watcher, err = fsnotify.NewWatcher(); err != nil {
			return err
		}
		defer watcher.Close()
		if err := watcher.Add(l.dir); err != nil {
			return fmt.Errorf("there are no logs in %s: %w", l.dir, err)
		}
	}
	offsets := map[string]int64{}
	lines, err := l.read(offsets)
	if err != nil {
		return err
	}
	if tail > 0 && len(lines) > tail {
		lines = lines[len(lines)-tail:]
	}
	l.print(lines)
	for follow {
		select {
		case <-cmd.Context().Done():
			return nil
		case <-watcher.Events:
			if lines, err = l.read(offsets); err != nil {
				return err
			}
			l.print(lines)
		case err := <-watcher.Errors:
			return err
		}
	}
	return nil
}

// read returns the lines that were added to any log since offsets, in the
// order of their times.
func (l *logReader) read(offsets map[string]int64) ([]logLine, error) {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there are no logs in %s: has a node ever run there? say where it is with --state", l.dir)
	}
	if err != nil {
		return nil, err
	}
	var lines []logLine
	for _, e := range entries {
		if e.IsDir() || (!strings.HasSuffix(e.Name(), ".log") && !strings.HasSuffix(e.Name(), ".stderr")) {
			continue
		}
		more, err := l.readFile(filepath.Join(l.dir, e.Name()), offsets)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	sort.SliceStable(lines, func(i, j int) bool { return lines[i].at.Before(lines[j].at) })
	return lines, nil
}

func (l *logReader) readFile(path string, offsets map[string]int64) ([]logLine, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // rotated away between listing and opening
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	offset := offsets[path]
	if st.Size() < offset { // a new file after rotation
		offset = 0
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	process, _, _ := strings.Cut(filepath.Base(path), ".")
	reader := bufio.NewReader(f)
	var lines []logLine
	for {
		text, err := reader.ReadString('\n')
		if err != nil { // the unfinished last line is read next time
			break
		}
		offset += int64(len(text))
		if line, ok := l.parse(process, strings.TrimSuffix(text, "\n"), st.ModTime()); ok {
			lines = append(lines, line)
		}
	}
	offsets[path] = offset
	return lines, nil
}

// parse turns a line into what is shown; lines that are not JSON come from a
// process that could not log, such as a crash report.
func (l *logReader) parse(process, text string, modified time.Time) (logLine, bool) {
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return logLine{at: modified, text: text}, text != "" && (l.component == "" || l.component == process)
	}
	get := func(key string) string { s, _ := fields[key].(string); return s }
	at, _ := time.Parse(time.RFC3339Nano, get("time"))
	wing, component := get("wing"), get("component")
	if l.component != "" && !slices.Contains([]string{process, get("process"), wing, component}, l.component) {
		return logLine{}, false
	}
	if l.raw {
		return logLine{at: at, text: text}, true
	}
	source := process
	for _, s := range []string{wing, component} {
		if s != "" {
			source = s
		}
	}
	level := get("level")
	switch level {
	case "ERROR":
		level = l.style.bad(level)
	case "WARN":
		level = l.style.warn(level)
	}
	var rest []string
	for k, v := range fields {
		if !slices.Contains([]string{"time", "level", "msg", "wing", "component", "process"}, k) {
			rest = append(rest, fmt.Sprintf("%s=%v", k, v))
		}
	}
	sort.Strings(rest)
	return logLine{at: at, text: fmt.Sprintf("%s %-5s %-14s %s %s", at.Local().Format("15:04:05.000"), level, source, get("msg"), l.style.dim(strings.Join(rest, " ")))}, true
}

func (l *logReader) print(lines []logLine) {
	for _, line := range lines {
		fmt.Fprintln(l.out, line.text)
	}
}
