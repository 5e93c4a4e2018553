package mirror

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Mode is a tree entry's file mode as git writes it.
type Mode string

// The modes that git writes.
const (
	ModeDir        Mode = "40000"
	ModeFile       Mode = "100644"
	ModeGroupFile  Mode = "100664" // written by very old versions of git
	ModeExecutable Mode = "100755"
	ModeSymlink    Mode = "120000"
	ModeSubmodule  Mode = "160000"
)

// Entry is one line of a tree.
type Entry struct {
	Name string
	Mode Mode
	ID   string
}

// Regular reports whether the entry is a file with content.
func (e Entry) Regular() bool {
	return e.Mode == ModeFile || e.Mode == ModeExecutable || e.Mode == ModeGroupFile
}

// maxTreeEntries bounds one directory.
const maxTreeEntries = 50_000

// ErrMalformedTree says that a tree object is not one that git would write:
// names that could leave the repository, duplicates, a wrong order.
var ErrMalformedTree = errors.New("malformed tree")

// Tree returns the entries of a tree object. Names are single path elements;
// none is "", ".", ".." or ".git", and no name occurs twice.
func (m *Mirror) Tree(id string) ([]Entry, error) {
	data, err := m.Object(TreeObject, id)
	if err != nil {
		return nil, err
	}
	entries, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", short(id), err)
	}
	return entries, nil
}

func parseTree(data []byte) ([]Entry, error) {
	const idLength = 20
	var entries []Entry
	names := map[string]bool{}
	previous := ""
	for len(data) > 0 {
		head, rest, ok := bytes.Cut(data, []byte{0})
		if !ok || len(rest) < idLength {
			return nil, fmt.Errorf("%w: it ends within an entry", ErrMalformedTree)
		}
		mode, name, ok := strings.Cut(string(head), " ")
		if !ok {
			return nil, fmt.Errorf("%w: entry without a mode", ErrMalformedTree)
		}
		e := Entry{Name: name, Mode: Mode(mode), ID: hex.EncodeToString(rest[:idLength])}
		if err := e.check(); err != nil {
			return nil, err
		}
		// git orders directories as if their name ended in a slash.
		key := name
		if e.Mode == ModeDir {
			key += "/"
		}
		if names[name] || key <= previous {
			return nil, fmt.Errorf("%w: entry %q is out of order or there twice", ErrMalformedTree, name)
		}
		names[name], previous = true, key
		if entries = append(entries, e); len(entries) > maxTreeEntries {
			return nil, fmt.Errorf("%w: more than %d entries", ErrMalformedTree, maxTreeEntries)
		}
		data = rest[idLength:]
	}
	return entries, nil
}

func (e Entry) check() error {
	switch e.Mode {
	case ModeDir, ModeFile, ModeGroupFile, ModeExecutable, ModeSymlink, ModeSubmodule:
	default:
		return fmt.Errorf("%w: entry %q has mode %q", ErrMalformedTree, e.Name, e.Mode)
	}
	switch {
	case e.Name == "" || e.Name == "." || e.Name == "..", strings.EqualFold(e.Name, ".git"),
		strings.ContainsAny(e.Name, "/\\\x00"):
		return fmt.Errorf("%w: an entry is named %q", ErrMalformedTree, e.Name)
	}
	return nil
}
