package remote

import (
	"errors"
	"fmt"
	"sort"

	"github.com/Masterminds/semver/v3"
)

// ErrNoVersion is in the chain of errors that say that no version of a chart
// satisfies what was asked for.
var ErrNoVersion = errors.New("no version satisfies the range")

// Newest picks the version that Helm would: one that is literally what was
// asked for, or else the highest that satisfies the range. An empty range means
// the highest that is no pre-release. Versions that are no semantic versions are
// passed over.
func Newest(versions []string, wanted string) (string, error) {
	for _, version := range versions {
		if version == wanted {
			return version, nil
		}
	}
	if wanted == "" {
		wanted = "*"
	}
	constraint, err := semver.NewConstraint(wanted)
	if err != nil {
		return "", fmt.Errorf("version range %q: %w", wanted, err)
	}
	var matching []*semver.Version
	for _, version := range versions {
		parsed, err := semver.NewVersion(version)
		if err == nil && constraint.Check(parsed) {
			matching = append(matching, parsed)
		}
	}
	if len(matching) == 0 {
		return "", fmt.Errorf("%w: %q, of %d versions", ErrNoVersion, wanted, len(versions))
	}
	sort.Sort(sort.Reverse(semver.Collection(matching)))
	return matching[0].Original(), nil
}

// IsExact tells whether a range names one version and nothing else, so that no
// list of versions is needed to find it.
func IsExact(wanted string) bool {
	_, err := semver.StrictNewVersion(wanted)
	return err == nil
}
