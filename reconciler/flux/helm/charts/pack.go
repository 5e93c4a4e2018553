package charts

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"path"
	"slices"
)

// Pack returns the archive of the chart. The same files make the same bytes:
// there are no times and no owners in it.
func (f Files) Pack() ([]byte, error) {
	m, err := f.Metadata()
	if err != nil {
		return nil, err
	}
	sorted := slices.Clone(f)
	slices.SortFunc(sorted, func(a, b *file) int { return cmp.Compare(a.Name, b.Name) })

	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	t := tar.NewWriter(zip)
	for _, file := range sorted {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: path.Join(m.Name, file.Name), Mode: 0o644, Size: int64(len(file.Data)),
		}
		if err := t.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack chart %s: %w", m.Name, err)
		}
		if _, err := t.Write(file.Data); err != nil {
			return nil, fmt.Errorf("pack chart %s: %w", m.Name, err)
		}
	}
	if err := t.Close(); err != nil {
		return nil, fmt.Errorf("pack chart %s: %w", m.Name, err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("pack chart %s: %w", m.Name, err)
	}
	return out.Bytes(), nil
}
