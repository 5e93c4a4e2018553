package sops

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// defaultUnencryptedSuffix is the rule of files that state none.
const defaultUnencryptedSuffix = "_unencrypted"

// rules say which values are encrypted. At most one of them is stated in a file.
type rules struct {
	unencryptedSuffix, encryptedSuffix   string
	unencryptedRegex, encryptedRegex     *regexp.Regexp
	unencryptedComment, encryptedComment *regexp.Regexp
}

func newRules(m *metadata) (*rules, error) {
	stated := 0
	for _, rule := range []string{m.UnencryptedSuffix, m.EncryptedSuffix, m.UnencryptedRegex, m.EncryptedRegex, m.UnencryptedCommentRegex, m.EncryptedCommentRegex} {
		if rule != "" {
			stated++
		}
	}
	if stated > 1 {
		return nil, errors.New("states more than one rule about what is encrypted")
	}
	r := &rules{unencryptedSuffix: m.UnencryptedSuffix, encryptedSuffix: m.EncryptedSuffix}
	if stated == 0 {
		r.unencryptedSuffix = defaultUnencryptedSuffix
	}
	for _, e := range []struct {
		to   **regexp.Regexp
		text string
	}{
		{&r.unencryptedRegex, m.UnencryptedRegex},
		{&r.encryptedRegex, m.EncryptedRegex},
		{&r.unencryptedComment, m.UnencryptedCommentRegex},
		{&r.encryptedComment, m.EncryptedCommentRegex},
	} {
		if e.text == "" {
			continue
		}
		var err error
		if *e.to, err = regexp.Compile(e.text); err != nil {
			return nil, fmt.Errorf("states a rule that is not a regular expression: %w", err)
		}
	}
	return r, nil
}

// place is where a value is: the keys that lead to it and the comments before
// it, level by level.
type place struct {
	path     []string
	comments [][]string
}

// encrypted reports whether the value at a place is encrypted.
func (r *rules) encrypted(at place, isComment bool) bool {
	suffix := func(suffix string) bool {
		return slices.ContainsFunc(at.path, func(key string) bool { return strings.HasSuffix(key, suffix) })
	}
	switch {
	case r.unencryptedSuffix != "":
		return !suffix(r.unencryptedSuffix)
	case r.encryptedSuffix != "":
		return suffix(r.encryptedSuffix)
	case r.unencryptedRegex != nil:
		return !slices.ContainsFunc(at.path, r.unencryptedRegex.MatchString)
	case r.encryptedRegex != nil:
		return slices.ContainsFunc(at.path, r.encryptedRegex.MatchString)
	case r.unencryptedComment != nil:
		return !commented(at.comments, r.unencryptedComment)
	case r.encryptedComment != nil:
		comments := at.comments
		if isComment {
			// The comment that asks for encryption is not encrypted itself.
			comments = slices.Clone(comments)
			last := len(comments) - 1
			comments[last] = comments[last][:len(comments[last])-1]
		}
		return commented(comments, r.encryptedComment)
	}
	return true
}

func commented(comments [][]string, by *regexp.Regexp) bool {
	for _, level := range comments {
		if slices.ContainsFunc(level, by.MatchString) {
			return true
		}
	}
	return false
}
