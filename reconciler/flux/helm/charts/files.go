package charts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/ignore"
	"sigs.k8s.io/yaml"
)

// MaxSize bounds the unpacked size of a chart with its dependencies, in bytes.
const MaxSize = 50 << 20

// The names of files that mean something to Helm.
const (
	chartFile  = "Chart.yaml"
	lockFile   = "Chart.lock"
	valuesFile = "values.yaml"
	ignoreFile = ".helmignore"
)

// ErrNoChart is in the chain of errors about a directory without a Chart.yaml.
var ErrNoChart = errors.New("no Chart.yaml")

// Files are the files of a chart, named relative to its directory.
type Files []*archive.BufferedFile

// FromDir reads the chart in a directory of a file system, leaving out what its
// .helmignore names, as Helm does.
func FromDir(fsys fs.FS, dir string) (Files, error) {
	dir = path.Clean(dir)
	if _, err := fs.Stat(fsys, path.Join(dir, chartFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("directory %q: %w", dir, ErrNoChart)
		}
		return nil, fmt.Errorf("read chart in %q: %w", dir, err)
	}
	rules, err := ignoreRules(fsys, dir)
	if err != nil {
		return nil, err
	}
	w := &walker{fsys: fsys, dir: dir, rules: rules, left: MaxSize}
	if err := fs.WalkDir(fsys, dir, w.visit); err != nil {
		return nil, fmt.Errorf("read chart in %q: %w", dir, err)
	}
	return w.files, nil
}

func ignoreRules(fsys fs.FS, dir string) (*ignore.Rules, error) {
	rules := ignore.Empty()
	content, err := fs.ReadFile(fsys, path.Join(dir, ignoreFile))
	switch {
	case err == nil:
		if rules, err = ignore.Parse(bytes.NewReader(content)); err != nil {
			return nil, fmt.Errorf("read %s: %w", path.Join(dir, ignoreFile), err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", path.Join(dir, ignoreFile), err)
	}
	rules.AddDefaults()
	return rules, nil
}

type walker struct {
	fsys  fs.FS
	dir   string
	rules *ignore.Rules
	left  int64
	files Files
}

func (w *walker) visit(name string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	inside := strings.TrimPrefix(strings.TrimPrefix(name, w.dir), "/")
	if w.dir == "." {
		inside = name
	}
	if inside == "" || inside == "." {
		return nil
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if w.rules.Ignore(inside, info) {
		if entry.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	switch {
	case entry.IsDir():
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file; a chart in a repository must not contain links", name)
	}
	return w.read(name, inside)
}

func (w *walker) read(name, inside string) error {
	data, err := fs.ReadFile(w.fsys, name)
	if err != nil {
		return err
	}
	if w.left -= int64(len(data)); w.left < 0 {
		return fmt.Errorf("the chart is larger than %d MiB", MaxSize>>20)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	w.files = append(w.files, &archive.BufferedFile{Name: inside, Data: data})
	return nil
}

// FromArchive reads a packed chart.
func FromArchive(r io.Reader) (Files, error) {
	files, err := archive.LoadArchiveFiles(r)
	if err != nil {
		return nil, fmt.Errorf("read chart archive: %w", err)
	}
	var size int64
	for _, f := range files {
		size += int64(len(f.Data))
	}
	if size > MaxSize {
		return nil, fmt.Errorf("read chart archive: it is larger than %d MiB unpacked", MaxSize>>20)
	}
	return files, nil
}

// FromArtifact reads the chart that an artifact holds: one archive, a chart at
// the top, or a chart in the only directory at the top, which is how registries
// deliver charts.
func FromArtifact(fsys fs.FS) (Files, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("read chart artifact: %w", err)
	}
	if len(entries) == 1 && !entries[0].IsDir() {
		data, err := fs.ReadFile(fsys, entries[0].Name())
		if err != nil {
			return nil, fmt.Errorf("read chart artifact: %w", err)
		}
		return FromArchive(bytes.NewReader(data))
	}
	dir := "."
	if len(entries) == 1 {
		dir = entries[0].Name()
	}
	return FromDir(fsys, dir)
}

// Chart parses the files. The result shares their contents.
func (f Files) Chart() (*chart.Chart, error) {
	c, err := loader.LoadFiles(f)
	if err != nil {
		return nil, fmt.Errorf("load chart: %w", err)
	}
	return c, nil
}

// Metadata parses Chart.yaml alone.
func (f Files) Metadata() (*chart.Metadata, error) {
	content := f.content(chartFile)
	if content == nil {
		return nil, fmt.Errorf("load chart: %w", ErrNoChart)
	}
	m := new(chart.Metadata)
	if err := yaml.Unmarshal(content, m); err != nil {
		return nil, fmt.Errorf("load %s: %w", chartFile, err)
	}
	if m.APIVersion == "" {
		m.APIVersion = chart.APIVersionV1
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("load %s: %w", chartFile, err)
	}
	return m, nil
}

// WithVersion returns the chart with another version in its Chart.yaml.
func (f Files) WithVersion(version string) (Files, error) {
	m, err := f.Metadata()
	if err != nil {
		return nil, err
	}
	if m.Version == version {
		return f, nil
	}
	m.Version = version
	content, err := yaml.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", chartFile, err)
	}
	return f.with(chartFile, content), nil
}

// content returns a file's content, or nil if there is no such file.
func (f Files) content(name string) []byte {
	for _, file := range f {
		if file.Name == name {
			return file.Data
		}
	}
	return nil
}

// with returns the files with one added or replaced.
func (f Files) with(name string, content []byte) Files {
	out := make(Files, 0, len(f)+1)
	for _, file := range f {
		if file.Name != name {
			out = append(out, file)
		}
	}
	return append(out, &archive.BufferedFile{Name: name, Data: content})
}
