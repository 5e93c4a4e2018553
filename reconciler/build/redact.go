package build

import (
	"slices"
	"strings"
)

// secrets are texts that must not be in an error.
type secrets struct{ values []string }

// shortest is the length below which hiding a text would hide the error and
// tell what the text was.
const shortest = 4

func (s *secrets) add(value string) {
	if len(value) >= shortest {
		s.values = append(s.values, value)
	}
}

// addContent adds the words of decrypted content that were not readable before.
func (s *secrets) addContent(plain, sealed []byte) {
	readable := map[string]bool{}
	for _, word := range words(sealed) {
		readable[word] = true
	}
	for _, word := range words(plain) {
		if !readable[word] {
			s.add(word)
		}
	}
}

func words(data []byte) []string {
	return strings.FieldsFunc(string(data), func(r rune) bool {
		return strings.ContainsRune(" \t\r\n\"'=,:{}[]", r)
	})
}

func (s *secrets) redact(text string) string {
	if len(s.values) == 0 {
		return text
	}
	values := slices.Clone(s.values)
	// The longest first: a part of a value must not keep the rest from being
	// found.
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	for _, value := range slices.Compact(values) {
		text = strings.ReplaceAll(text, value, "***")
	}
	return text
}
