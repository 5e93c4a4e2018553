package signers

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxCommitSize is the largest commit object accepted, in bytes.
const MaxCommitSize = 1 << 20

// Commit is a parsed commit object. All fields but Signature come from Payload.
type Commit struct {
	// Tree and Parents are object ids in hexadecimal.
	Tree    string
	Parents []string
	// Author and Committer are "Name <email>".
	Author    string
	Committer string
	// CommitTime is the committer's time.
	CommitTime time.Time
	// Message is the text after the headers.
	Message string

	// Payload is what was signed: the object without its signature header.
	Payload []byte
	// Signature is the armored signature; nil if there is none.
	Signature []byte
}

// Subject is the first line of the message.
func (c *Commit) Subject() string {
	line, _, _ := strings.Cut(strings.TrimLeft(c.Message, "\n"), "\n")
	return strings.TrimSpace(line)
}

// Trailer returns the values of a trailer ("Key: value" in the last paragraph
// of the message), compared without case.
func (c *Commit) Trailer(key string) []string {
	paragraphs := strings.Split(strings.TrimSpace(c.Message), "\n\n")
	if len(paragraphs) < 2 {
		return nil
	}
	var values []string
	for _, line := range strings.Split(paragraphs[len(paragraphs)-1], "\n") {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(strings.TrimSpace(name), key) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// ParseCommit takes a raw commit object (without the "commit <size>" prefix)
// apart. It is stricter than git: headers stand in git's order, none of them
// twice, and there is at most one signature. An error is a *[Error] of class
// [Malformed] or [Unsupported].
func ParseCommit(raw []byte) (*Commit, error) {
	if len(raw) > MaxCommitSize {
		return nil, malformed(fmt.Sprintf("is %d bytes long, the limit is %d", len(raw), MaxCommitSize), nil)
	}
	c := &Commit{}
	var err error
	if c.Payload, c.Signature, err = split(raw); err != nil {
		return nil, err
	}
	if err := c.parsePayload(); err != nil {
		return nil, malformed("is not a well-formed commit object", err)
	}
	return c, nil
}

// split separates the gpgsig header, with its continuation lines, from the
// rest of the object.
func split(raw []byte) (payload, signature []byte, err error) {
	payload = make([]byte, 0, len(raw))
	inSignature := false
	for rest := raw; len(rest) > 0; {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line = rest[:i+1]
		}
		if len(line) == 1 && line[0] == '\n' { // the message begins
			return append(payload, rest...), signature, nil
		}
		rest = rest[len(line):]
		switch {
		case inSignature && line[0] == ' ':
			signature = append(signature, line[1:]...)
		case bytes.HasPrefix(line, []byte("gpgsig ")):
			if signature != nil {
				return nil, nil, malformed("carries two signatures", nil)
			}
			inSignature = true
			signature = append([]byte{}, line[len("gpgsig "):]...)
		case bytes.HasPrefix(line, []byte("gpgsig")):
			return nil, nil, &Error{Class: Unsupported, Problem: "carries a signature header of another object format", Remedy: "use a repository with SHA-1 object ids"}
		default:
			inSignature = false
			payload = append(payload, line...)
		}
	}
	return payload, signature, nil
}

func (c *Commit) parsePayload() error {
	head, message, found := bytes.Cut(c.Payload, []byte("\n\n"))
	if !found {
		head = bytes.TrimSuffix(head, []byte("\n"))
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return errors.New("NUL byte in the headers")
	}
	c.Message = string(message)
	p := &headers{lines: strings.Split(string(head), "\n")}

	var ok bool
	if c.Tree, ok = p.take("tree"); !ok || !isObjectID(c.Tree) {
		return errors.New("no valid tree header")
	}
	for {
		parent, ok := p.take("parent")
		if !ok {
			break
		}
		if !isObjectID(parent) || len(parent) != len(c.Tree) {
			return errors.New("invalid parent header")
		}
		c.Parents = append(c.Parents, parent)
	}
	author, ok := p.take("author")
	if !ok {
		return errors.New("no author header")
	}
	committer, ok := p.take("committer")
	if !ok {
		return errors.New("no committer header")
	}
	var err error
	if c.Author, _, err = parseIdentity(author); err != nil {
		return fmt.Errorf("author: %w", err)
	}
	if c.Committer, c.CommitTime, err = parseIdentity(committer); err != nil {
		return fmt.Errorf("committer: %w", err)
	}
	return p.rest()
}

// headers is a cursor over the header lines.
type headers struct{ lines []string }

func (h *headers) take(name string) (string, bool) {
	if len(h.lines) == 0 {
		return "", false
	}
	value, ok := strings.CutPrefix(h.lines[0], name+" ")
	if ok {
		h.lines = h.lines[1:]
	}
	return value, ok
}

// rest allows further headers (encoding, mergetag …) with continuation lines,
// but no second one of those that mean something here.
func (h *headers) rest() error {
	for i, line := range h.lines {
		if strings.HasPrefix(line, " ") {
			if i == 0 {
				return errors.New("continuation line without a header")
			}
			continue
		}
		name, _, ok := strings.Cut(line, " ")
		if !ok || name == "" {
			return fmt.Errorf("header line %q", line)
		}
		switch name {
		case "tree", "parent", "author", "committer":
			return fmt.Errorf("misplaced %s header", name)
		}
	}
	return nil
}

// parseIdentity reads "Name <email> 1700000000 +0100".
func parseIdentity(s string) (string, time.Time, error) {
	end := strings.LastIndexByte(s, '>')
	if end < 0 || !strings.Contains(s[:end], "<") {
		return "", time.Time{}, fmt.Errorf("identity %q", s)
	}
	fields := strings.Fields(s[end+1:])
	if len(fields) != 2 {
		return "", time.Time{}, fmt.Errorf("time in %q", s)
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return "", time.Time{}, fmt.Errorf("time %q", fields[0])
	}
	return s[:end+1], time.Unix(seconds, 0).UTC(), nil
}

func isObjectID(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return true
}

func malformed(problem string, err error) *Error {
	return &Error{Class: Malformed, Problem: problem, Remedy: "create the commit again with git", Err: err}
}
