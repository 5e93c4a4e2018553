package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// File is where the policy lies in the repository.
const File = "trust/images.yaml"

const (
	rootSuffix = "trusted_root.json"
	// maxFile bounds each file, in bytes. Sigstore's public root has 7 KiB.
	maxFile = 1 << 20
)

// Files are the files that a policy is made of, by their path in the repository.
// Nil means that the site has no policy.
type Files map[string][]byte

// Read takes the policy's files out of a tree. A tree without trust/images.yaml
// has no policy: the result is nil.
func Read(tree fs.FS) (Files, error) {
	entries, err := fs.ReadDir(tree, path.Dir(File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	files := Files{}
	for _, e := range entries {
		name := path.Join(path.Dir(File), e.Name())
		if name != File && !strings.HasSuffix(name, rootSuffix) {
			continue
		}
		if !e.Type().IsRegular() { // a link that leads nowhere must not read as "no policy"
			return nil, fmt.Errorf("%s: is not a plain file; commit the file itself", name)
		}
		if files[name], err = readBounded(tree, name); err != nil {
			return nil, err
		}
	}
	if _, ok := files[File]; !ok {
		return nil, nil
	}
	return files, nil
}

func readBounded(tree fs.FS, name string) ([]byte, error) {
	f, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: is larger than %d KiB", name, maxFile>>10)
	}
	return data, err
}

// Hash identifies the content of the files.
func (f Files) Hash() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(h, "%d %s %d ", len(name), name, len(f[name]))
		h.Write(f[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// root returns a trusted root by the name that a policy calls it.
func (f Files) root(ref string) ([]byte, error) {
	name := path.Join(path.Dir(File), rootSuffix)
	if ref != "" {
		name = path.Join(path.Dir(File), ref+"."+rootSuffix)
	}
	if path.Dir(name) != path.Dir(File) {
		return nil, fmt.Errorf("%q is not the name of a trusted root", ref)
	}
	data, ok := f[name]
	if !ok {
		return nil, fmt.Errorf("there is no %s", name)
	}
	return data, nil
}
