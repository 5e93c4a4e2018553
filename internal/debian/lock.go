package debian

import (
	"fmt"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"
)

// Lock names the packages there are.
type Lock struct {
	// file is where it was read from, for errors.
	file string
	// Snapshot is a time in the notation of snapshot.debian.org.
	Snapshot string                `json:"snapshot"`
	Suites   map[string]Suite      `json:"suites"`
	Kernels  map[string]KernelLock `json:"kernels"`
	Packages []Package             `json:"packages"`
}

// Suite is one line of an apt source: a suite of an archive, component main.
type Suite struct {
	Archive string `json:"archive"`
	Suite   string `json:"suite"`
}

// Package is one version of a package.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Suite   string `json:"suite"`
	SHA256  string `json:"sha256"`
}

// KernelLock says what a kernel is made of.
type KernelLock struct {
	// Release is what `uname -r` says.
	Release  string   `json:"release"`
	Packages []string `json:"packages"`
	// Follow is a package that always depends on the newest kernel of its kind; "" for a
	// kernel that stays.
	Follow string `json:"follow,omitempty"`
}

var (
	hexSHA256    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	snapshotTime = regexp.MustCompile(`^\d{8}T\d{6}Z$`)
)

// ParseLock reads a lock file; the name is for errors. What is not complete is refused,
// so that nothing is ever fetched without knowing what it has to be.
func ParseLock(file string, data []byte) (*Lock, error) {
	l := &Lock{file: file}
	if err := yaml.UnmarshalStrict(data, l); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if !snapshotTime.MatchString(l.Snapshot) {
		return nil, fmt.Errorf("%s: snapshot %q is no time like 20060102T150405Z", file, l.Snapshot)
	}
	for _, p := range l.Packages {
		if p.Name == "" || p.Version == "" || !hexSHA256.MatchString(p.SHA256) {
			return nil, fmt.Errorf("%s: package %q needs a name, a version and a sha256 of 64 hexadecimal digits", file, p.Name)
		}
		if _, ok := l.Suites[p.Suite]; !ok {
			return nil, fmt.Errorf("%s: package %s is of suite %q, which is not listed", file, p.Name, p.Suite)
		}
	}
	for name, k := range l.Kernels {
		if k.Release == "" || len(k.Packages) == 0 {
			return nil, fmt.Errorf("%s: kernel %s needs a release and packages", file, name)
		}
		for _, p := range k.Packages {
			if _, err := l.Find(p); err != nil {
				return nil, fmt.Errorf("%s: kernel %s: %w", file, name, err)
			}
		}
	}
	return l, nil
}

// Find returns the package of a name.
func (l *Lock) Find(name string) (Package, error) {
	i := slices.IndexFunc(l.Packages, func(p Package) bool { return p.Name == name })
	if i < 0 {
		return Package{}, fmt.Errorf("package %s is not listed", name)
	}
	return l.Packages[i], nil
}
