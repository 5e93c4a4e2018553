package debian

import (
	"strings"
	"testing"
)

func TestIncompleteLocksAreRefused(t *testing.T) {
	const sha = "0000000000000000000000000000000000000000000000000000000000000000"
	for name, c := range map[string]struct{ text, want string }{
		"hash":     {"packages: [{name: a, version: '1', suite: s, sha256: 'abc'}]", "sha256"},
		"version":  {"packages: [{name: a, suite: s, sha256: '" + sha + "'}]", "version"},
		"suite":    {"packages: [{name: a, version: '1', suite: other, sha256: '" + sha + "'}]", "other"},
		"unlisted": {"kernels: {'1': {release: r, packages: [b]}}", "b is not listed"},
		"empty":    {"kernels: {'1': {release: r}}", "packages"},
		"field":    {"packges: []", "packges"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "snapshot: 20260101T000000Z\nsuites: {s: {archive: a, suite: s}}\n" + c.text
			if _, err := ParseLock("packages.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v does not mention %q", err, c.want)
			}
		})
	}
	if _, err := ParseLock("packages.yaml", []byte("snapshot: yesterday")); err == nil {
		t.Error("a snapshot that is no time is accepted")
	}
}
