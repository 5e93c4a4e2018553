package sops

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// flatPrefix begins the names of SOPS's variables in a dotenv file.
const flatPrefix = metadataKey + "_"

// dotenvStore is lines of name=value.
type dotenvStore struct{}

func (dotenvStore) load(data []byte) ([]branch, error) {
	b := branch{}
	number := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		number++
		switch {
		case line == "":
		case line[0] == '#':
			b = append(b, item{comment: &comment{text: line[1:]}})
		default:
			name, value, ok := strings.Cut(line, "=")
			if !ok {
				return nil, fmt.Errorf("line %d has no =", number)
			}
			b = append(b, item{key: name, value: strings.ReplaceAll(value, `\n`, "\n")})
		}
		if number > maxNodes {
			return nil, errTooLarge
		}
	}
	return []branch{b}, nil
}

func (dotenvStore) takeMetadata(documents []branch) ([]branch, branch, error) {
	var rest, entry branch
	for _, it := range documents[0] {
		if name, ok := strings.CutPrefix(it.key, flatPrefix); ok && it.comment == nil {
			entry = append(entry, item{key: name, value: it.value})
			continue
		}
		rest = append(rest, it)
	}
	if entry == nil {
		return nil, nil, errors.New("it has no variables of SOPS")
	}
	entry, err := unflatten(entry)
	return []branch{rest}, entry, err
}

func (dotenvStore) emit(documents []branch) ([]byte, error) {
	var out bytes.Buffer
	for _, it := range documents[0] {
		if it.comment != nil {
			fmt.Fprintf(&out, "#%s\n", it.comment.text)
			continue
		}
		value, err := text(it.value)
		if err != nil {
			return nil, fmt.Errorf("%s %w", it.key, err)
		}
		fmt.Fprintf(&out, "%s=%s\n", it.key, strings.ReplaceAll(value, "\n", `\n`))
	}
	return out.Bytes(), nil
}
