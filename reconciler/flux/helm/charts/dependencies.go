package charts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"sigs.k8s.io/yaml"
)

type file = archive.BufferedFile

// Fetch gets a dependency of a chart from the repository that it names. The
// version of the dependency is exact if the chart has a lock file, a range if
// not.
type Fetch func(ctx context.Context, dependency *chart.Dependency) (Files, error)

// maxDepth bounds how deep file:// dependencies of dependencies are followed.
const maxDepth = 8

// Complete returns the chart with the dependencies that it names and does not
// bring along in charts/. Those of file:// are taken from the same file system,
// relative to dir, the directory of the chart in it; all others come from fetch.
func (f Files) Complete(ctx context.Context, fsys fs.FS, dir string, fetch Fetch) (Files, error) {
	return f.complete(ctx, fsys, dir, fetch, maxDepth)
}

func (f Files) complete(ctx context.Context, fsys fs.FS, dir string, fetch Fetch, depth int) (Files, error) {
	wanted, err := f.missing()
	if err != nil || len(wanted) == 0 {
		return f, err
	}
	if depth == 0 {
		return nil, fmt.Errorf("dependencies of the chart in %q are nested more than %d deep", dir, maxDepth)
	}
	out := slices.Clone(f)
	for _, dependency := range wanted {
		found, err := obtain(ctx, fsys, dir, dependency, fetch, depth)
		if err != nil {
			return nil, fmt.Errorf("dependency %s: %w", dependency.Name, err)
		}
		for _, file := range found {
			name := path.Join("charts", dependency.Name, file.Name)
			out = append(out, &archive.BufferedFile{Name: name, Data: file.Data})
		}
	}
	if size(out) > MaxSize {
		return nil, fmt.Errorf("the chart is larger than %d MiB with its dependencies", MaxSize>>20)
	}
	return out, nil
}

func obtain(ctx context.Context, fsys fs.FS, dir string, d *chart.Dependency, fetch Fetch, depth int) (Files, error) {
	local, isLocal := strings.CutPrefix(d.Repository, "file://")
	switch {
	case isLocal:
		return obtainLocal(ctx, fsys, path.Join(dir, local), d, fetch, depth)
	case d.Repository == "":
		return nil, errors.New("it has no repository and is not in charts/; add one of the two")
	case fetch == nil:
		return nil, fmt.Errorf("it is not in charts/, and repository %s cannot be used from here", d.Repository)
	}
	return fetch(ctx, d)
}

func obtainLocal(ctx context.Context, fsys fs.FS, dir string, d *chart.Dependency, fetch Fetch, depth int) (Files, error) {
	if !fs.ValidPath(dir) {
		return nil, fmt.Errorf("%s is outside the source", d.Repository)
	}
	found, err := FromDir(fsys, dir)
	if err != nil {
		return nil, err
	}
	if err := found.satisfies(d); err != nil {
		return nil, err
	}
	return found.complete(ctx, fsys, dir, fetch, depth-1)
}

// satisfies checks that a chart is the one which a dependency asks for.
func (f Files) satisfies(d *chart.Dependency) error {
	m, err := f.Metadata()
	if err != nil {
		return err
	}
	if m.Name != d.Name {
		return fmt.Errorf("the chart found is %q", m.Name)
	}
	return Satisfies(m.Version, d.Version)
}

// Satisfies checks a version against a range; an empty range is satisfied by
// every version.
func Satisfies(version, wanted string) error {
	if wanted == "" || version == wanted {
		return nil
	}
	constraint, err := semver.NewConstraint(wanted)
	if err != nil {
		return fmt.Errorf("version range %q: %w", wanted, err)
	}
	parsed, err := semver.NewVersion(version)
	if err != nil {
		return fmt.Errorf("version %q: %w", version, err)
	}
	if !constraint.Check(parsed) {
		return fmt.Errorf("version %s does not satisfy %q", version, wanted)
	}
	return nil
}

// missing lists the dependencies that are not in charts/, with the versions of
// the lock file if there is one.
func (f Files) missing() ([]*chart.Dependency, error) {
	declared, err := f.declared()
	if err != nil || len(declared) == 0 {
		return nil, err
	}
	present, err := f.vendored()
	if err != nil {
		return nil, err
	}
	locked, err := f.locked()
	if err != nil {
		return nil, err
	}
	var missing []*chart.Dependency
	for _, d := range declared {
		if present[d.Name] {
			continue
		}
		wanted := *d
		if version, ok := locked[d.Name]; ok {
			wanted.Version = version
		}
		// A dependency may be listed several times under different aliases.
		present[d.Name] = true
		missing = append(missing, &wanted)
	}
	return missing, nil
}

// declared reads the dependencies of Chart.yaml, or those of requirements.yaml
// for charts of the first API version.
func (f Files) declared() ([]*chart.Dependency, error) {
	m, err := f.Metadata()
	if err != nil {
		return nil, err
	}
	if m.APIVersion != chart.APIVersionV1 {
		return m.Dependencies, nil
	}
	var requirements struct {
		Dependencies []*chart.Dependency `json:"dependencies"`
	}
	if err := yaml.Unmarshal(f.content("requirements.yaml"), &requirements); err != nil {
		return nil, fmt.Errorf("load requirements.yaml: %w", err)
	}
	return append(m.Dependencies, requirements.Dependencies...), nil
}

func (f Files) vendored() (map[string]bool, error) {
	if !slices.ContainsFunc(f, func(file *file) bool { return strings.HasPrefix(file.Name, "charts/") }) {
		return map[string]bool{}, nil
	}
	c, err := f.Chart()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range c.Dependencies() {
		names[d.Name()] = true
	}
	return names, nil
}

func (f Files) locked() (map[string]string, error) {
	content := f.content(lockFile)
	if content == nil {
		content = f.content("requirements.lock")
	}
	var lock chart.Lock
	if err := yaml.Unmarshal(content, &lock); err != nil {
		return nil, fmt.Errorf("load %s: %w", lockFile, err)
	}
	versions := map[string]string{}
	for _, d := range lock.Dependencies {
		versions[d.Name] = d.Version
	}
	return versions, nil
}

func size(f Files) int64 {
	var total int64
	for _, file := range f {
		total += int64(len(file.Data))
	}
	return total
}
