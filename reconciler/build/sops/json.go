package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// jsonStore is JSON, indented with tabs.
type jsonStore struct{}

func (jsonStore) takeMetadata(documents []branch) ([]branch, branch, error) {
	return topLevelMetadata(documents)
}

func (jsonStore) load(data []byte) ([]branch, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	l := &jsonLoader{decoder: decoder}
	value, err := l.value(0)
	if err != nil {
		return nil, err
	}
	b, ok := value.(branch)
	if !ok {
		return nil, errors.New("it is not an object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return []branch{b}, nil
}

// jsonLoader keeps the order of keys, which encoding/json does not.
type jsonLoader struct {
	decoder *json.Decoder
	budget  budget
}

func (l *jsonLoader) value(depth int) (any, error) {
	if err := l.budget.take(depth); err != nil {
		return nil, err
	}
	token, err := l.decoder.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return l.object(depth)
		}
		return l.array(depth)
	case json.Number:
		if whole, err := t.Int64(); err == nil {
			return int(whole), nil
		}
		return t.Float64()
	}
	return token, nil
}

func (l *jsonLoader) object(depth int) (any, error) {
	b := branch{}
	keys := map[string]bool{}
	for l.decoder.More() {
		token, err := l.decoder.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string)
		if keys[key] {
			return nil, fmt.Errorf("the key %q is there twice", key)
		}
		keys[key] = true
		value, err := l.value(depth + 1)
		if err != nil {
			return nil, err
		}
		b = append(b, item{key: key, value: value})
	}
	_, err := l.decoder.Token()
	return b, err
}

func (l *jsonLoader) array(depth int) (any, error) {
	out := []any{}
	for l.decoder.More() {
		value, err := l.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	_, err := l.decoder.Token()
	return out, err
}

func (jsonStore) emit(documents []branch) ([]byte, error) {
	var compact, out bytes.Buffer
	if err := writeJSON(&compact, documents[0]); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, compact.Bytes(), "", "\t"); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func writeJSON(out *bytes.Buffer, value any) error {
	switch v := value.(type) {
	case branch:
		out.WriteByte('{')
		first := true
		for _, it := range v {
			if it.comment != nil {
				continue
			}
			if !first {
				out.WriteByte(',')
			}
			first = false
			if err := writeJSON(out, it.key); err != nil {
				return err
			}
			out.WriteByte(':')
			if err := writeJSON(out, it.value); err != nil {
				return err
			}
		}
		out.WriteByte('}')
		return nil
	case []any:
		out.WriteByte('[')
		first := true
		for _, element := range v {
			if _, isComment := element.(comment); isComment {
				continue
			}
			if !first {
				out.WriteByte(',')
			}
			first = false
			if err := writeJSON(out, element); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	}
	raw, err := json.Marshal(value)
	out.Write(raw)
	return err
}

// binaryStore is content of any kind, as the value "data" of a JSON object.
type binaryStore struct{ jsonStore }

func (binaryStore) emit(documents []branch) ([]byte, error) {
	value, _ := documents[0].get("data")
	content, ok := value.(string)
	if !ok {
		return nil, errors.New(`it has no "data"`)
	}
	return []byte(content), nil
}
