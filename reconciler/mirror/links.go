package mirror

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// links collects the objects that the objects of a pack refer to. With them it
// is known whether a pack is complete without walking through history: it is
// if each of them is in the pack or was in the mirror before.
//
// Objects that are malformed are not judged here, only read as far as they make
// sense: nothing will be readable through the rest.
type links struct {
	nodes map[plumbing.Hash]struct{} // commits, trees and tags
	files map[plumbing.Hash]struct{} // blobs
	// bare leaves out files: they may be fetched later.
	bare bool
}

func newLinks(bare bool) *links {
	return &links{nodes: map[plumbing.Hash]struct{}{}, files: map[plumbing.Hash]struct{}{}, bare: bare}
}

func (l *links) add(kind plumbing.ObjectType, data []byte) error {
	switch kind {
	case plumbing.CommitObject:
		l.commit(data)
	case plumbing.TreeObject:
		l.tree(data)
	case plumbing.TagObject:
		l.tag(data)
	}
	if len(l.nodes)+len(l.files) > 2*maxObjects {
		return fmt.Errorf("%w: the objects refer to more than %d others", ErrTooLarge, 2*maxObjects)
	}
	return nil
}

func (l *links) commit(data []byte) {
	forCommitLinks(data, func(_ string, id plumbing.Hash) { l.nodes[id] = struct{}{} })
}

// forCommitLinks calls visit for the tree and the parents of a commit.
func forCommitLinks(data []byte, visit func(name string, id plumbing.Hash)) {
	for {
		line, rest, ok := bytes.Cut(data, []byte{'\n'})
		name, value, _ := bytes.Cut(line, []byte{' '})
		if !ok || string(name) != "tree" && string(name) != "parent" {
			return
		}
		if id, ok := parseID(value); ok {
			visit(string(name), id)
		}
		data = rest
	}
}

func parseID(text []byte) (id plumbing.Hash, ok bool) {
	if len(text) != 2*idLength {
		return id, false
	}
	_, err := hex.Decode(id[:], text)
	return id, err == nil
}

func (l *links) tag(data []byte) {
	line, rest, _ := bytes.Cut(data, []byte{'\n'})
	kind, _, _ := bytes.Cut(rest, []byte{'\n'})
	if value, ok := bytes.CutPrefix(line, []byte("object ")); ok && string(kind) != "type blob" {
		if id, ok := parseID(value); ok {
			l.nodes[id] = struct{}{}
		}
	}
}

func (l *links) tree(data []byte) {
	for len(data) > 0 {
		space := bytes.IndexByte(data, ' ')
		end := bytes.IndexByte(data, 0)
		if space < 0 || end < space || len(data) < end+1+idLength {
			return
		}
		var id plumbing.Hash
		copy(id[:], data[end+1:])
		switch Mode(data[:space]) {
		case ModeDir:
			l.nodes[id] = struct{}{}
		case ModeSubmodule:
		default:
			if !l.bare {
				l.files[id] = struct{}{}
			}
		}
		data = data[end+1+idLength:]
	}
}
