package policy

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

var globCharacters = regexp.MustCompile(`^[a-zA-Z0-9-_:/*.@]+$`)

// compileGlob makes a regular expression of a glob: ** is any text, * any text
// without a slash. It has to match the whole name.
func compileGlob(glob string) (*regexp.Regexp, error) {
	if !globCharacters.MatchString(glob) {
		return nil, fmt.Errorf("%q is not a glob over image names", glob)
	}
	switch glob { // as policy-controller reads the two shortest
	case "*":
		glob = "index.docker.io/library/*"
	case "*/*":
		glob = "index.docker.io/*/*"
	}
	var b strings.Builder
	b.WriteByte('^')
	for i := 0; i < len(glob); i++ {
		switch {
		case strings.HasPrefix(glob[i:], "**"):
			b.WriteString(".*")
			i++
		case glob[i] == '*':
			b.WriteString("[^/]*")
		default:
			b.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		}
	}
	b.WriteByte('$')
	return regexp.Compile(b.String())
}

const (
	dockerHub      = "docker.io/"
	dockerHubIndex = "index.docker.io/"
)

// forms are the ways to write the name of an image: as given, in full, with
// either name of Docker Hub, and with the digest in place of the tag.
func forms(image, digest string) []string {
	out := []string{image}
	add := func(form string) {
		out = append(out, form)
		if rest, ok := strings.CutPrefix(form, dockerHubIndex); ok {
			out = append(out, dockerHub+rest)
		}
	}
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return out // an image that is known by its id alone
	}
	add(ref.Name())
	if digest != "" {
		add(ref.Context().Name() + "@" + digest)
	}
	return out
}
