package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the largest document accepted, in bytes. Aliases are refused, so
// that a document cannot grow while it is decoded.
const MaxSize = 1 << 20

// Error is one problem in one place. Its text is
// "file:line: field: problem; remedy", without the parts that are empty.
type Error struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Field   string `json:"field,omitempty"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy,omitempty"`
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Problem)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Document remembers where the fields of a decoded file stand.
type Document struct {
	File string
	root *yaml.Node
}

// Decode reads exactly one YAML document from data into the struct that into
// points to. Field names are those of the json tags. All problems found are
// returned together (errors.Join of *Error), in the order of their lines.
func Decode(file string, data []byte, into any) (*Document, error) {
	fail := func(line int, problem, remedy string) (*Document, error) {
		return nil, &Error{File: file, Line: line, Problem: problem, Remedy: remedy}
	}
	if len(data) > MaxSize {
		return fail(0, fmt.Sprintf("is %d bytes long, the limit is %d", len(data), MaxSize), "split it or remove what does not belong here")
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	if err := dec.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return fail(0, "is empty", "write the document or delete the file")
		}
		line, text := splitYAMLError(err)
		return fail(line, text, "correct the YAML syntax")
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return fail(second.Line, "holds a second document", "keep one document in this file")
	} else if !errors.Is(err, io.EOF) {
		line, text := splitYAMLError(err)
		return fail(line, text, "correct the YAML syntax")
	}
	doc := &Document{File: file, root: root.Content[0]}
	c := &checker{file: file}
	c.check(doc.root, reflect.TypeOf(into).Elem(), "")
	if len(c.errs) > 0 {
		return nil, c.join()
	}
	var plain any
	if err := doc.root.Decode(&plain); err != nil {
		line, text := splitYAMLError(err)
		return fail(line, text, "correct the YAML")
	}
	asJSON, err := json.Marshal(plain)
	if err != nil {
		return fail(doc.root.Line, err.Error(), "use plain mappings, sequences and scalars")
	}
	jd := json.NewDecoder(bytes.NewReader(asJSON))
	jd.DisallowUnknownFields()
	if err := jd.Decode(into); err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			return nil, &Error{File: file, Line: doc.Line(te.Field), Field: te.Field, Problem: "cannot be " + te.Value, Remedy: "give a value of type " + te.Type.String()}
		}
		return fail(doc.root.Line, err.Error(), "")
	}
	return doc, nil
}

// Line returns the line on which field ("spec.network.podCIDRs[0]") stands, or
// that of its nearest parent that exists; 0 if the document is unknown.
func (d *Document) Line(field string) int {
	if d == nil || d.root == nil {
		return 0
	}
	node, line := d.root, d.root.Line
	parts := splitField(field)
	for i, part := range parts {
		key, next := lookup(node, part)
		if next == nil { // a key with dots in it, as that of a mapping may have
			key, next = lookup(node, strings.Join(parts[i:], "."))
		}
		if next == nil {
			return line
		}
		line = next.Line
		if key != nil {
			line = key.Line
		}
		node = next
	}
	return line
}

// Errorf makes an *Error for a field of this document.
func (d *Document) Errorf(field, remedy, format string, args ...any) *Error {
	return &Error{File: d.File, Line: d.Line(field), Field: field, Problem: fmt.Sprintf(format, args...), Remedy: remedy}
}

func splitField(field string) []string {
	field = strings.NewReplacer("[", ".", "]", "").Replace(field)
	if field == "" {
		return nil
	}
	return strings.Split(field, ".")
}

func lookup(node *yaml.Node, part string) (key, value *yaml.Node) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == part {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(node.Content) {
			return nil, node.Content[i]
		}
	}
	return nil, nil
}

// splitYAMLError takes "yaml: line 3: text" apart.
func splitYAMLError(err error) (int, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
	}
	return line, text
}

type checker struct {
	file string
	errs []*Error
}

func (c *checker) add(line int, field, problem, remedy string) {
	c.errs = append(c.errs, &Error{File: c.file, Line: line, Field: field, Problem: problem, Remedy: remedy})
}

func (c *checker) join() error {
	sort.SliceStable(c.errs, func(i, j int) bool { return c.errs[i].Line < c.errs[j].Line })
	all := make([]error, len(c.errs))
	for i, e := range c.errs {
		all[i] = e
	}
	return errors.Join(all...)
}

var (
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textType        = reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()
)

// check compares node with the Go type it will be decoded into.
func (c *checker) check(node *yaml.Node, t reflect.Type, field string) {
	if node.Kind == yaml.AliasNode || node.Anchor != "" {
		c.add(node.Line, field, "anchors and aliases are not allowed", "write the value out")
		return
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if node.Tag == "!!null" {
		return
	}
	if reflect.PointerTo(t).Implements(unmarshalerType) || reflect.PointerTo(t).Implements(textType) {
		c.checkCustom(node, t, field)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		c.checkStruct(node, t, field)
	case reflect.Map:
		if c.wantKind(node, yaml.MappingNode, "a mapping", field) {
			c.eachKey(node, field, func(key, value *yaml.Node, at string) { c.check(value, t.Elem(), at) })
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			c.wantTag(node, field, "a string", "!!str")
			return
		}
		if c.wantKind(node, yaml.SequenceNode, "a list", field) {
			for i, item := range node.Content {
				c.check(item, t.Elem(), fmt.Sprintf("%s[%d]", field, i))
			}
		}
	case reflect.String:
		c.wantTag(node, field, "a string", "!!str")
	case reflect.Bool:
		c.wantTag(node, field, "true or false", "!!bool")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		c.wantTag(node, field, "a whole number", "!!int")
	case reflect.Float32, reflect.Float64:
		c.wantTag(node, field, "a number", "!!int", "!!float")
	}
}

// checkCustom lets a type with its own decoder judge its value, so that the
// error carries the line.
func (c *checker) checkCustom(node *yaml.Node, t reflect.Type, field string) {
	var plain any
	err := node.Decode(&plain)
	if err == nil {
		var data []byte
		if data, err = json.Marshal(plain); err == nil {
			err = json.Unmarshal(data, reflect.New(t).Interface())
		}
	}
	if err != nil {
		c.add(node.Line, field, strings.TrimPrefix(err.Error(), "json: "), "give a valid value")
	}
}

func (c *checker) checkStruct(node *yaml.Node, t reflect.Type, field string) {
	if !c.wantKind(node, yaml.MappingNode, "a mapping", field) {
		return
	}
	fields := jsonFields(t)
	c.eachKey(node, field, func(key, value *yaml.Node, at string) {
		ft, ok := fields[key.Value]
		if !ok {
			c.add(key.Line, at, "unknown field", suggestion(key.Value, fields))
			return
		}
		c.check(value, ft, at)
	})
}

func (c *checker) eachKey(node *yaml.Node, field string, visit func(key, value *yaml.Node, at string)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := key.Value
		if field != "" {
			at = field + "." + key.Value
		}
		if first, dup := seen[key.Value]; dup {
			c.add(key.Line, at, fmt.Sprintf("duplicate key, first given on line %d", first), "keep one of them")
			continue
		}
		seen[key.Value] = key.Line
		visit(key, value, at)
	}
}

func (c *checker) wantKind(node *yaml.Node, kind yaml.Kind, what, field string) bool {
	if node.Kind == kind {
		return true
	}
	c.add(node.Line, field, fmt.Sprintf("must be %s, not %s", what, describe(node)), "")
	return false
}

func (c *checker) wantTag(node *yaml.Node, field, what string, tags ...string) {
	for _, tag := range tags {
		if node.Kind == yaml.ScalarNode && node.ShortTag() == tag {
			return
		}
	}
	remedy := ""
	if what == "a string" && node.Kind == yaml.ScalarNode {
		remedy = "put it in quotes"
	}
	c.add(node.Line, field, fmt.Sprintf("must be %s, not %s", what, describe(node)), remedy)
}

func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch node.ShortTag() {
	case "!!str":
		return "the string " + strconv.Quote(node.Value)
	case "!!bool":
		return "the boolean " + node.Value
	case "!!int", "!!float":
		return "the number " + node.Value
	}
	return strconv.Quote(node.Value)
}

// jsonFields maps json names to types, embedded structs included.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			for k, v := range jsonFields(f.Type) {
				out[k] = v
			}
			continue
		}
		if name != "" && name != "-" {
			out[name] = f.Type
		}
	}
	return out
}

func suggestion(name string, fields map[string]reflect.Type) string {
	best, score := "", 3
	names := make([]string, 0, len(fields))
	for f := range fields {
		names = append(names, f)
		if d := distance(strings.ToLower(name), strings.ToLower(f)); d < score {
			best, score = f, d
		}
	}
	if best != "" {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	sort.Strings(names)
	return "known fields are " + strings.Join(names, ", ")
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
