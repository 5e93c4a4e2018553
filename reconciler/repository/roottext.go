package repository

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// rootText is the text of a trust root. Its methods cut lines out and put lines
// in where the YAML parser says that things stand; all other lines stay as
// somebody wrote them. What comes out is decoded and compared with what was
// meant before it is used.
type rootText string

// field finds the value of a top-level key; nil if there is none.
func (t rootText) field(name string) (key, value *yaml.Node, err error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(t), &doc); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", rootFile, err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("%s is not a mapping", rootFile)
	}
	top := doc.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		if top[i].Value == name {
			return top[i], top[i+1], nil
		}
	}
	return nil, nil, nil
}

func (t rootText) setVersion(v int64) (rootText, error) {
	_, value, err := t.field("version")
	if err != nil {
		return t, err
	}
	if value == nil || value.Kind != yaml.ScalarNode {
		return t, fmt.Errorf("%s has no version that could be raised", rootFile)
	}
	lines := t.lines()
	line := lines[value.Line-1]
	head, tail := line[:value.Column-1], line[value.Column-1:]
	rest, ok := strings.CutPrefix(tail, value.Value)
	if !ok {
		return t, fmt.Errorf("%s:%d: write the version as a plain number", rootFile, value.Line)
	}
	lines[value.Line-1] = head + strconv.FormatInt(v, 10) + rest
	return join(lines), nil
}

// items is where the items of a list stand.
type items struct {
	dash int // column of the dashes, from 0
	// from and to are the lines of each item, from 0, to being the one after the
	// last; comments above an item belong to it.
	from, first, to []int
}

// list finds a list that is written one item below the other.
func (t rootText) list(name string) (*items, error) {
	key, value, err := t.field(name)
	if err != nil || key == nil {
		return nil, err
	}
	if value.Kind != yaml.SequenceNode || value.Style&yaml.FlowStyle != 0 || len(value.Content) == 0 {
		return nil, fmt.Errorf("%s:%d: write %s as a list with one item below the other, each after a dash", rootFile, key.Line, name)
	}
	lines := t.lines()
	l := &items{dash: value.Column - 1}
	for _, item := range value.Content {
		l.first = append(l.first, item.Line-1)
	}
	end := l.endOf(lines, l.first[len(l.first)-1])
	for i, first := range l.first {
		from := first
		for from > key.Line && isComment(lines[from-1]) && indentOf(lines[from-1]) >= l.dash {
			from--
		}
		l.from = append(l.from, from)
		if i > 0 {
			l.to = append(l.to, from)
		}
	}
	l.to = append(l.to, end)
	return l, nil
}

// endOf is the line after an item's last one: the item goes on as long as lines
// are indented deeper than its dash.
func (l *items) endOf(lines []string, first int) int {
	end := first + 1
	for i := end; i < len(lines); i++ {
		switch {
		case strings.TrimSpace(lines[i]) == "":
		case indentOf(lines[i]) > l.dash:
			end = i + 1
		default:
			return end
		}
	}
	return end
}

func isComment(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "#") }

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// appendItem puts an item behind the last one of a list, which is made at the
// end of the file if there is none.
func (t rootText) appendItem(name, item string) (rootText, error) {
	l, err := t.list(name)
	if err != nil {
		return t, err
	}
	lines := t.lines()
	if l == nil {
		for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
			lines = lines[:len(lines)-1]
		}
		return join(append(append(lines, name+":\n"), indented(item, 2)...)), nil
	}
	end := l.endOf(lines, l.first[len(l.first)-1])
	if last := lines[end-1]; !strings.HasSuffix(last, "\n") {
		lines[end-1] = last + "\n"
	}
	return splice(lines, end, end, indented(item, l.dash)), nil
}

// removeItem cuts an item and the comments above it out.
func (t rootText) removeItem(name string, i int) (rootText, error) {
	l, err := t.list(name)
	if err != nil || l == nil {
		return t, err
	}
	return splice(t.lines(), l.from[i], l.to[i], nil), nil
}

// replaceItem writes an item anew; the comments above it stay.
func (t rootText) replaceItem(name string, i int, item string) (rootText, error) {
	l, err := t.list(name)
	if err != nil || l == nil {
		return t, err
	}
	lines := t.lines()
	return splice(lines, l.first[i], l.endOf(lines, l.first[i]), indented(item, l.dash)), nil
}

func (t rootText) lines() []string { return strings.SplitAfter(string(t), "\n") }

func join(lines []string) rootText { return rootText(strings.Join(lines, "")) }

func splice(lines []string, from, to int, put []string) rootText {
	out := append([]string(nil), lines[:from]...)
	out = append(out, put...)
	return join(append(out, lines[to:]...))
}

// indented moves a rendered item to the right.
func indented(item string, by int) []string {
	var out []string
	for line := range strings.Lines(item) {
		if strings.TrimSpace(line) != "" {
			line = strings.Repeat(" ", by) + line
		}
		out = append(out, line)
	}
	return out
}

// renderSigner writes a signer as an item of a list.
func renderSigner(s v1alpha1.Signer) string {
	m := &yaml.Node{Kind: yaml.MappingNode}
	put(m, "name", s.Name)
	put(m, "kind", s.Kind)
	put(m, "publicKey", s.PublicKey)
	put(m, "subject", s.Subject)
	put(m, "issuer", s.Issuer)
	put(m, "certificateAuthorities", s.CertificateAuthorities)
	put(m, "trustedRoot", s.TrustedRoot)
	put(m, "transparencyLogKeys", s.TransparencyLogKeys)
	put(m, "timestampAuthorities", s.TimestampAuthorities)
	putTime(m, "notBefore", s.NotBefore)
	putTime(m, "notAfter", s.NotAfter)
	return renderItem(m)
}

func putTime(m *yaml.Node, key string, t *time.Time) {
	if t != nil {
		put(m, key, t.UTC().Format(time.RFC3339))
	}
}

// renderRule writes a rule as an item of a list.
func renderRule(r v1alpha1.Rule) string {
	m := &yaml.Node{Kind: yaml.MappingNode}
	putList(m, "signers", r.Signers)
	putList(m, "paths", r.Paths)
	if r.Threshold > 1 {
		m.Content = append(m.Content, scalar("threshold"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(r.Threshold)})
	}
	return renderItem(m)
}

func put(m *yaml.Node, key, value string) {
	if value == "" {
		return
	}
	v := scalar(value)
	if strings.Contains(strings.TrimSpace(value), "\n") || len(value) > 60 {
		v.Style, v.Value = yaml.LiteralStyle, strings.TrimRight(value, "\n")+"\n"
	}
	m.Content = append(m.Content, scalar(key), v)
}

func putList(m *yaml.Node, key string, values []string) {
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range values {
		item := scalar(v)
		if strings.Contains(v, "*") {
			item.Style = yaml.DoubleQuotedStyle
		}
		list.Content = append(list.Content, item)
	}
	m.Content = append(m.Content, scalar(key), list)
}

func scalar(v string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(v)
	return n
}

// renderItem encodes a list of one item and leaves the list away.
func renderItem(m *yaml.Node) string {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	// Strings and numbers always encode.
	if err := e.Encode(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{m}}); err != nil {
		panic(err)
	}
	if err := e.Close(); err != nil {
		panic(err)
	}
	return b.String()
}
