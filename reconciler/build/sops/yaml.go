package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// yamlIndent is the indentation of what SOPS writes.
const yamlIndent = 4

// yamlStore is YAML, with comments.
type yamlStore struct{}

func (yamlStore) takeMetadata(documents []branch) ([]branch, branch, error) {
	return topLevelMetadata(documents)
}

func (yamlStore) load(data []byte) ([]branch, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var out []branch
	l := &yamlLoader{}
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		b, err := l.document(&document)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
}

// yamlLoader turns nodes into content. Comments become entries of their own, in
// the order in which SOPS has them: rules may depend on it.
type yamlLoader struct{ budget budget }

func (l *yamlLoader) document(node *yaml.Node) (branch, error) {
	if len(node.Content) != 1 {
		return nil, errors.New("a document is empty")
	}
	root := node.Content[0]
	switch {
	case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
		return branch{}, nil
	case root.Kind != yaml.MappingNode:
		return nil, errors.New("a document is not a mapping")
	}
	b := comments(nil, node.HeadComment, false)
	b = comments(b, node.LineComment, false)
	content, err := l.mapping(root, false, 0)
	if err != nil {
		return nil, err
	}
	return comments(append(b, content...), node.FootComment, false), nil
}

// comments appends a comment for each line of text.
func comments(b branch, text string, inline bool) branch {
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" {
			b = append(b, item{comment: &comment{text: line[1:], inline: inline}})
		}
	}
	return b
}

func listComments(l []any, text string, inline bool) []any {
	for _, it := range comments(nil, text, inline) {
		l = append(l, *it.comment)
	}
	return l
}

// mapping turns a mapping into a branch. handled says that the comments of the
// node were taken by its parent.
func (l *yamlLoader) mapping(node *yaml.Node, handled bool, depth int) (branch, error) {
	b := branch{}
	if !handled {
		b = comments(comments(b, node.HeadComment, false), node.LineComment, false)
	}
	keys := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name, err := keyName(key)
		if err != nil {
			return nil, err
		}
		if keys[name] {
			return nil, fmt.Errorf("line %d: the key %q is there twice", key.Line, name)
		}
		keys[name] = true
		b = comments(comments(b, key.HeadComment, false), key.LineComment, false)
		own := value.Kind == yaml.ScalarNode || value.Kind == yaml.AliasNode
		if own {
			b = comments(comments(b, value.HeadComment, false), value.LineComment, true)
		}
		content, err := l.value(value, own, depth+1)
		if err != nil {
			return nil, err
		}
		b = append(b, item{key: name, value: content})
		if own {
			b = comments(b, value.FootComment, false)
		}
		b = comments(b, key.FootComment, false)
	}
	if !handled {
		b = comments(b, node.FootComment, false)
	}
	return b, nil
}

func keyName(key *yaml.Node) (string, error) {
	var name any
	if err := key.Decode(&name); err != nil {
		return "", fmt.Errorf("line %d: a key cannot be read", key.Line)
	}
	text, ok := name.(string)
	if !ok {
		return "", fmt.Errorf("line %d: a key is not a string", key.Line)
	}
	return text, nil
}

func (l *yamlLoader) value(node *yaml.Node, handled bool, depth int) (any, error) {
	if err := l.budget.take(depth); err != nil {
		return nil, err
	}
	switch node.Kind {
	case yaml.MappingNode:
		return l.mapping(node, handled, depth)
	case yaml.SequenceNode:
		return l.sequence(node, handled, depth)
	case yaml.AliasNode:
		return l.value(node.Alias, false, depth+1)
	}
	return scalar(node)
}

func (l *yamlLoader) sequence(node *yaml.Node, handled bool, depth int) (any, error) {
	var out []any
	if !handled {
		out = listComments(listComments(out, node.HeadComment, false), node.LineComment, false)
	}
	for _, element := range node.Content {
		out = listComments(listComments(out, element.HeadComment, false), element.LineComment, true)
		value, err := l.value(element, true, depth+1)
		if err != nil {
			return nil, err
		}
		out = listComments(append(out, value), element.FootComment, false)
	}
	if !handled {
		out = listComments(out, node.FootComment, false)
	}
	return out, nil
}

func scalar(node *yaml.Node) (any, error) {
	var value any
	if err := node.Decode(&value); err != nil {
		return nil, fmt.Errorf("line %d: a value cannot be read", node.Line)
	}
	switch value.(type) {
	case nil, string, int, float64, bool, time.Time:
		return value, nil
	}
	return nil, fmt.Errorf("line %d: a value is neither text, a number, a time nor true or false", node.Line)
}

func (yamlStore) emit(documents []branch) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(yamlIndent)
	for _, b := range documents {
		root, err := yamlMapping(b)
		if err != nil {
			return nil, err
		}
		if err := encoder.Encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}); err != nil {
			return nil, err
		}
	}
	err := encoder.Close()
	return out.Bytes(), err
}

// pending are comments that wait for what they belong to.
type pending struct{ head, inline []string }

func (p *pending) add(c comment) {
	if c.inline {
		p.inline = append(p.inline, c.text)
	} else {
		p.head = append(p.head, c.text)
	}
}

// write moves comments to a node.
func write(lines *[]string, to *string) {
	if len(*lines) == 0 {
		return
	}
	*to = "#" + strings.Join(*lines, "\n#")
	*lines = nil
}

func yamlMapping(b branch) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	var wait pending
	for _, it := range b {
		if it.comment != nil {
			wait.add(*it.comment)
			continue
		}
		if len(node.Content) == 0 {
			write(&wait.head, &node.HeadComment)
		}
		key := &yaml.Node{}
		if err := key.Encode(it.key); err != nil {
			return nil, err
		}
		value, err := yamlValue(it.value)
		if err != nil {
			return nil, err
		}
		write(&wait.head, &key.HeadComment)
		write(&wait.inline, &value.LineComment)
		node.Content = append(node.Content, key, value)
	}
	rest := append(wait.head, wait.inline...)
	if len(node.Content) == 0 {
		write(&rest, &node.HeadComment)
	} else {
		write(&rest, &node.Content[len(node.Content)-2].FootComment)
	}
	return node, nil
}

func yamlSequence(list []any) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.SequenceNode}
	var wait pending
	for _, element := range list {
		if c, ok := element.(comment); ok {
			wait.add(c)
			continue
		}
		if len(node.Content) == 0 {
			write(&wait.head, &node.HeadComment)
		}
		value, err := yamlValue(element)
		if err != nil {
			return nil, err
		}
		write(&wait.head, &value.HeadComment)
		write(&wait.inline, &value.LineComment)
		node.Content = append(node.Content, value)
	}
	rest := append(wait.head, wait.inline...)
	if len(node.Content) == 0 {
		write(&rest, &node.HeadComment)
	} else {
		write(&rest, &node.Content[len(node.Content)-1].FootComment)
	}
	return node, nil
}

func yamlValue(value any) (*yaml.Node, error) {
	switch v := value.(type) {
	case branch:
		return yamlMapping(v)
	case []any:
		return yamlSequence(v)
	}
	node := &yaml.Node{}
	err := node.Encode(value)
	return node, err
}
