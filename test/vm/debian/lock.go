package debian

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"
)

//go:embed packages.yaml
var packagesYAML []byte

// lock is what packages.yaml says.
type lock struct {
	// Snapshot is a time in the notation of snapshot.debian.org.
	Snapshot string                `json:"snapshot"`
	Suites   map[string]suite      `json:"suites"`
	Kernels  map[string]kernelLock `json:"kernels"`
	Packages []pkg                 `json:"packages"`
}

// suite is one line of an apt source: a suite of an archive, component main.
type suite struct {
	Archive string `json:"archive"`
	Suite   string `json:"suite"`
}

// pkg is one version of a package.
type pkg struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Suite   string `json:"suite"`
	SHA256  string `json:"sha256"`
}

type kernelLock struct {
	// Release is what `uname -r` says.
	Release  string   `json:"release"`
	Packages []string `json:"packages"`
}

var (
	hexSHA256    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	snapshotTime = regexp.MustCompile(`^\d{8}T\d{6}Z$`)
)

// parseLock refuses what is not complete, so that nothing is ever fetched
// without knowing what it has to be.
func parseLock(data []byte) (*lock, error) {
	l := &lock{}
	if err := yaml.UnmarshalStrict(data, l); err != nil {
		return nil, fmt.Errorf("packages.yaml: %w", err)
	}
	if !snapshotTime.MatchString(l.Snapshot) {
		return nil, fmt.Errorf("packages.yaml: snapshot %q is no time like 20060102T150405Z", l.Snapshot)
	}
	for _, p := range l.Packages {
		if p.Name == "" || p.Version == "" || !hexSHA256.MatchString(p.SHA256) {
			return nil, fmt.Errorf("packages.yaml: package %q needs a name, a version and a sha256 of 64 hexadecimal digits", p.Name)
		}
		if _, ok := l.Suites[p.Suite]; !ok {
			return nil, fmt.Errorf("packages.yaml: package %s is of suite %q, which is not listed", p.Name, p.Suite)
		}
	}
	for name, k := range l.Kernels {
		if k.Release == "" || len(k.Packages) == 0 {
			return nil, fmt.Errorf("packages.yaml: kernel %s needs a release and packages", name)
		}
		for _, p := range k.Packages {
			if _, err := l.find(p); err != nil {
				return nil, fmt.Errorf("packages.yaml: kernel %s: %w", name, err)
			}
		}
	}
	return l, nil
}

func (l *lock) find(name string) (pkg, error) {
	i := slices.IndexFunc(l.Packages, func(p pkg) bool { return p.Name == name })
	if i < 0 {
		return pkg{}, fmt.Errorf("package %s is not listed", name)
	}
	return l.Packages[i], nil
}
