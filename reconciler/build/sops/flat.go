package sops

import (
	"errors"
	"strconv"
	"strings"
)

const (
	mapSeparator  = "__map_"
	listSeparator = "__list_"
)

var errFlat = errors.New("its sops entry is malformed: its flattened names do not make a whole")

// unflatten makes SOPS's entry of a format without nesting a whole again:
// age__list_0__map_enc is the field enc of the first age key.
func unflatten(flat branch) (branch, error) {
	root := &flatNode{}
	for _, it := range flat {
		if it.comment != nil {
			continue
		}
		if err := root.place(it.key, it.value); err != nil {
			return nil, err
		}
	}
	value, err := root.content(0)
	if err != nil {
		return nil, err
	}
	b, ok := value.(branch)
	if !ok {
		return nil, errFlat
	}
	return b, nil
}

// flatNode is a value, a mapping or a list.
type flatNode struct {
	value any
	leaf  bool
	order []string
	named map[string]*flatNode
	list  map[int]*flatNode
}

// place puts a value where its name says.
func (n *flatNode) place(name string, value any) error {
	name = mapSeparator + name
	for name != "" {
		isMap := strings.HasPrefix(name, mapSeparator)
		if isMap {
			name = name[len(mapSeparator):]
		} else {
			name = name[len(listSeparator):]
		}
		end := len(name)
		for _, separator := range []string{mapSeparator, listSeparator} {
			if i := strings.Index(name, separator); i >= 0 && i < end {
				end = i
			}
		}
		var err error
		if n, err = n.child(name[:end], isMap); err != nil {
			return err
		}
		name = name[end:]
	}
	if n.leaf {
		return errFlat
	}
	n.leaf, n.value = true, value
	return nil
}

func (n *flatNode) child(token string, isMap bool) (*flatNode, error) {
	if isMap {
		if n.named == nil {
			n.named = map[string]*flatNode{}
		}
		if n.named[token] == nil {
			n.named[token] = &flatNode{}
			n.order = append(n.order, token)
		}
		return n.named[token], nil
	}
	position, err := strconv.Atoi(token)
	if err != nil || position < 0 {
		return nil, errFlat
	}
	if n.list == nil {
		n.list = map[int]*flatNode{}
	}
	if n.list[position] == nil {
		n.list[position] = &flatNode{}
	}
	return n.list[position], nil
}

func (n *flatNode) content(depth int) (any, error) {
	kinds := 0
	for _, is := range []bool{n.leaf, n.named != nil, n.list != nil} {
		if is {
			kinds++
		}
	}
	if kinds != 1 || depth > maxDepth {
		return nil, errFlat
	}
	if n.leaf {
		return n.value, nil
	}
	if n.named != nil {
		b := branch{}
		for _, key := range n.order {
			value, err := n.named[key].content(depth + 1)
			if err != nil {
				return nil, err
			}
			b = append(b, item{key: key, value: value})
		}
		return b, nil
	}
	out := make([]any, len(n.list))
	for i := range out {
		element := n.list[i]
		if element == nil {
			return nil, errFlat
		}
		var err error
		if out[i], err = element.content(depth + 1); err != nil {
			return nil, err
		}
	}
	return out, nil
}
