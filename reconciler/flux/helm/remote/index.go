package remote

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"helm.sh/helm/v4/pkg/repo/v1"
	"sigs.k8s.io/yaml"
)

// ErrNoSuchChart is in the chain of errors about a chart that an index does not
// name.
var ErrNoSuchChart = errors.New("the index does not name this chart")

// Find returns the versions of one chart in an index, as they stand in it.
//
// Indexes of large repositories have tens of megabytes; parsing one takes ten
// times its size in memory. The usual layout, which all tools write, is
// therefore cut by its indentation, and only the part about the chart is parsed.
// Whatever is laid out otherwise is parsed as a whole.
func Find(index io.ReadSeeker, name string) ([]*repo.ChartVersion, error) {
	section, err := cut(index, name)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if section == nil {
		if _, err := index.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		return findInAll(index, name)
	}
	var versions []*repo.ChartVersion
	if err := yaml.Unmarshal(section, &versions); err != nil {
		return nil, fmt.Errorf("read index: chart %s: %w", name, err)
	}
	return usable(versions, name)
}

func findInAll(index io.Reader, name string) ([]*repo.ChartVersion, error) {
	content, err := io.ReadAll(index)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	var all struct {
		Entries map[string][]*repo.ChartVersion `json:"entries"`
	}
	if err := yaml.Unmarshal(content, &all); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	versions, ok := all.Entries[name]
	if !ok {
		return nil, fmt.Errorf("chart %s: %w", name, ErrNoSuchChart)
	}
	return usable(versions, name)
}

// usable leaves out entries that lack what is needed to fetch a chart.
func usable(versions []*repo.ChartVersion, name string) ([]*repo.ChartVersion, error) {
	var out []*repo.ChartVersion
	for _, v := range versions {
		if v != nil && v.Metadata != nil && v.Name == name && v.Version != "" && len(v.URLs) > 0 {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("chart %s: %w", name, ErrNoSuchChart)
	}
	return out, nil
}

// maxLine bounds a line of an index that is cut; longer ones make it be parsed.
const maxLine = 1 << 20

// cut returns the lines below "  <name>:" in "entries:", or nil if the index is
// not laid out that way or does not name the chart there. Nothing inside of an
// entry can look like its end: every style of YAML value has to be indented
// deeper than the key it belongs to.
func cut(index io.Reader, name string) ([]byte, error) {
	lines := bufio.NewScanner(index)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	c := cutter{name: name}
	for lines.Scan() {
		if done := c.line(lines.Bytes()); done {
			break
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, nil
		}
		return nil, err
	}
	return c.section, nil
}

type cutter struct {
	name    string
	entries bool // below "entries:"
	inside  bool // below the chart's key
	section []byte
}

// line takes the next line and tells whether the end is reached.
func (c *cutter) line(line []byte) bool {
	trimmed := bytes.TrimLeft(line, " ")
	indent := len(line) - len(trimmed)
	trimmed = bytes.TrimRight(trimmed, " \r")
	blank := len(trimmed) == 0 || trimmed[0] == '#'
	switch {
	case c.inside && (blank || indent > 2 || indent == 2 && trimmed[0] == '-'):
		c.section = append(append(c.section, line...), '\n')
	case c.inside:
		return true
	case blank:
	case indent == 0:
		c.entries = string(trimmed) == "entries:"
	case c.entries && indent == 2:
		c.inside = key(string(trimmed)) == c.name
	}
	return false
}

// key returns the key of a line that opens a block, or "".
func key(line string) string {
	k, ok := strings.CutSuffix(line, ":")
	if !ok {
		return ""
	}
	return strings.Trim(k, `"'`)
}

// CheckIndex tells whether content looks like an index at all: servers answer
// with pages of HTML and status 200 when something is wrong.
func CheckIndex(index io.ReadSeeker) error {
	if _, err := index.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	head := make([]byte, 4096)
	n, err := io.ReadFull(index, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read index: %w", err)
	}
	if looksLikeIndex(head[:n]) {
		return nil
	}
	if _, err := index.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	content, err := io.ReadAll(index)
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	var all struct {
		APIVersion string         `json:"apiVersion"`
		Entries    map[string]any `json:"entries"`
	}
	if err := yaml.Unmarshal(content, &all); err != nil {
		return fmt.Errorf("the answer is no index of charts: %w", err)
	}
	if all.APIVersion == "" {
		return repo.ErrNoAPIVersion
	}
	return nil
}

// looksLikeIndex recognises the usual beginning of an index.
func looksLikeIndex(head []byte) bool {
	var version, entries bool
	for line := range bytes.Lines(head) {
		version = version || bytes.HasPrefix(line, []byte("apiVersion:"))
		entries = entries || bytes.HasPrefix(line, []byte("entries:"))
	}
	return version && entries
}
