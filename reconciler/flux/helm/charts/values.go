package charts

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"
)

// ValuesFiles says which files make the default values of a chart.
type ValuesFiles struct {
	// Names are merged in their order, the last overriding the first.
	Names []string
	// IgnoreMissing skips those that are not there.
	IgnoreMissing bool
	// From is where they are looked for; nil means in the chart itself.
	From fs.FS
}

// WithValues returns the chart with the merged values files as its default
// values, and the names of those that were there. Without names nothing changes.
func (f Files) WithValues(v ValuesFiles) (Files, []string, error) {
	if len(v.Names) == 0 {
		return f, nil, nil
	}
	merged := map[string]any{}
	var used []string
	for _, name := range v.Names {
		content, err := v.read(f, name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && v.IgnoreMissing:
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("read values file %q: %w", name, err)
		}
		values, err := common.ReadValues(content)
		if err != nil {
			return nil, nil, fmt.Errorf("read values file %q: %w", name, err)
		}
		merged = loader.MergeMaps(merged, values)
		used = append(used, name)
	}
	if len(used) == 0 {
		return f, nil, nil
	}
	content, err := yaml.Marshal(merged)
	if err != nil {
		return nil, nil, fmt.Errorf("merge values files: %w", err)
	}
	if bytes.Equal(content, f.content(valuesFile)) {
		return f, used, nil
	}
	return f.with(valuesFile, content), used, nil
}

func (v ValuesFiles) read(f Files, name string) ([]byte, error) {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if v.From != nil {
		return fs.ReadFile(v.From, clean)
	}
	content := f.content(clean)
	if content == nil {
		return nil, fs.ErrNotExist
	}
	return content, nil
}
