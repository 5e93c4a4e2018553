package sops

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/ini.v1"
)

// iniStore is sections of names and values.
type iniStore struct{}

func iniOptions() ini.LoadOptions { return ini.LoadOptions{AllowNonUniqueSections: true} }

func (iniStore) load(data []byte) ([]branch, error) {
	file, err := ini.LoadSources(iniOptions(), data)
	if err != nil {
		// The text of the error quotes the line.
		return nil, errors.New("it cannot be parsed")
	}
	b := branch{}
	for _, section := range file.Sections() {
		content := branch{}
		content = iniComment(content, section.Comment)
		for _, key := range section.Keys() {
			content = append(content, item{key: key.Name(), value: key.Value()})
			content = iniComment(content, key.Comment)
		}
		b = append(b, item{key: section.Name(), value: content})
	}
	return []branch{b}, nil
}

func iniComment(b branch, text string) branch {
	switch {
	case text == "":
		return b
	case text[0] == ';':
		text = strings.TrimLeft(text, "; ")
	case text[0] == '#':
		text = strings.TrimLeft(text, "# ")
	}
	return append(b, item{comment: &comment{text: text}})
}

func (iniStore) takeMetadata(documents []branch) ([]branch, branch, error) {
	documents, entry, err := topLevelMetadata(documents)
	if err != nil {
		return nil, nil, err
	}
	for i, it := range entry {
		if text, ok := it.value.(string); ok {
			entry[i].value = strings.ReplaceAll(text, `\n`, "\n")
		}
	}
	entry, err = unflatten(entry)
	return documents, entry, err
}

func (iniStore) emit(documents []branch) ([]byte, error) {
	file := ini.Empty(iniOptions())
	file.DeleteSection(ini.DefaultSection)
	for _, it := range documents[0] {
		if it.comment != nil {
			continue
		}
		section, err := file.NewSection(it.key)
		if err != nil {
			return nil, fmt.Errorf("section %q cannot be written", it.key)
		}
		if err := iniSection(section, it.value); err != nil {
			return nil, fmt.Errorf("section %q %w", it.key, err)
		}
	}
	var out bytes.Buffer
	_, err := file.WriteTo(&out)
	return out.Bytes(), err
}

func iniSection(section *ini.Section, value any) error {
	content, ok := value.(branch)
	if !ok {
		return errors.New("holds no names")
	}
	var last *ini.Key
	for i, it := range content {
		if it.comment != nil {
			switch {
			case i == 0:
				section.Comment = it.comment.text
			case last != nil:
				last.Comment = it.comment.text
			}
			continue
		}
		value, err := text(it.value)
		if err != nil {
			return err
		}
		if last, err = section.NewKey(it.key, value); err != nil {
			return fmt.Errorf("has a name that cannot be written: %q", it.key)
		}
	}
	return nil
}
