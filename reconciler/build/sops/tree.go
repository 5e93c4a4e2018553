package sops

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	// maxDepth and maxNodes bound what a file may unfold to.
	maxDepth = 100
	maxNodes = 200_000
)

// branch is a mapping in the order of the file. Values are string, int,
// float64, bool, time.Time, nil, []any, branch and, in lists, comment.
type branch []item

// item is a key with its value, or a comment with no value.
type item struct {
	key     string
	value   any
	comment *comment // instead of key and value
}

// comment is text after a comment sign.
type comment struct {
	text   string
	inline bool
}

// errTooLarge is why a small file may be refused: anchors of YAML multiply.
var errTooLarge = fmt.Errorf("nests deeper than %d or unfolds to more than %d values", maxDepth, maxNodes)

// budget counts what a file unfolds to.
type budget struct{ nodes int }

func (b *budget) take(depth int) error {
	if b.nodes++; b.nodes > maxNodes || depth > maxDepth {
		return errTooLarge
	}
	return nil
}

// get returns the value of a key.
func (b branch) get(key string) (any, bool) {
	for _, it := range b {
		if it.comment == nil && it.key == key {
			return it.value, true
		}
	}
	return nil, false
}

// without returns the branch without a key.
func (b branch) without(key string) branch {
	out := make(branch, 0, len(b))
	for _, it := range b {
		if it.comment != nil || it.key != key {
			out = append(out, it)
		}
	}
	return out
}

// bytesOf is a value as SOPS encrypts and authenticates it.
func bytesOf(value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		return []byte(v), nil
	case int:
		return []byte(strconv.Itoa(v)), nil
	case float64:
		return []byte(strconv.FormatFloat(v, 'f', -1, 64)), nil
	case bool:
		if v {
			return []byte("True"), nil
		}
		return []byte("False"), nil
	case time.Time:
		return v.MarshalText()
	}
	return nil, fmt.Errorf("SOPS has no values of type %T", value)
}

// text is a value in a file that has only strings.
func text(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case nil:
		return "", nil
	case bool:
		return strconv.FormatBool(v), nil
	case int, float64, time.Time:
		out, err := bytesOf(v)
		return string(out), err
	}
	return "", errors.New("holds a mapping or a list, which this format has not")
}
