package debian

import (
	"slices"
	"strings"
	"testing"
)

const updateLock = `# A comment.
snapshot: 20260101T000000Z
suites: {s: {archive: a, suite: s}}
kernels:
  vm: # another one
    release: 6.12.1-amd64
    packages: [linux-image-6.12.1-amd64]
    follow: linux-image-amd64
packages:
  - name: linux-image-6.12.1-amd64
    version: 6.12.1-1
    suite: s
    sha256: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
  - name: tool
    version: 1:2.0+b1
    suite: s
    sha256: dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
  - name: same
    version: '7'
    suite: s
    sha256: eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
`

func TestALockMovesToNewerPackages(t *testing.T) {
	l, err := ParseLock("lock.yaml", []byte(updateLock))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]offer{
		"linux-image-amd64":        {version: "6.12.2-1", sha256: strings.Repeat("0", 64), depends: "linux-image-6.12.2-amd64"},
		"linux-image-6.12.2-amd64": {version: "6.12.2-1", sha256: strings.Repeat("a", 64)},
		"tool":                     {version: "1:2.1", sha256: strings.Repeat("b", 64)},
		"same":                     {version: "7", sha256: strings.Repeat("e", 64)},
	}
	text := []byte(updateLock)
	var changes []string
	show := func(name string) (offer, error) { return there[name], nil }
	err = (&Store{lock: l}).updateFrom(show, []string{"linux-image-6.12.1-amd64", "tool", "same"}, &text, &changes)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("6.12.1", "6.12.2", "1:2.0+b1", "1:2.1", strings.Repeat("c", 64), strings.Repeat("a", 64), strings.Repeat("d", 64), strings.Repeat("b", 64)).Replace(updateLock)
	if string(text) != want {
		t.Errorf("got\n%s", text)
	}
	if !slices.Equal(changes, []string{"linux-image-6.12.1-amd64 6.12.1-1 -> linux-image-6.12.2-amd64 6.12.2-1", "tool 1:2.0+b1 -> tool 1:2.1"}) {
		t.Errorf("%q", changes)
	}
}

func TestOffers(t *testing.T) {
	o, err := parseOffer([]byte("Package: a\nVersion: 1:2\nDepends: b-2 (= 1), c\nSHA256: " + strings.Repeat("a", 64) + "\n"))
	if err != nil || o.version != "1:2" || o.depends != "b-2" {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := parseOffer([]byte("Package: a\n")); err == nil {
		t.Error("nothing is an offer")
	}
}
