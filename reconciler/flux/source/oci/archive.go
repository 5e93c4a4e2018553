package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

const (
	// maxContent bounds a layer, packed and unpacked, in bytes.
	maxContent = 64 << 20
	// maxEntries bounds the files and directories of an archive.
	maxEntries = 50_000
	// maxDepth bounds how deep directories nest.
	maxDepth = 100
)

// errTooLarge is why an archive is refused.
var errTooLarge = fmt.Errorf("unpacks to more than %d MiB or %d files", maxContent>>20, maxEntries)

// unpack reads a tar archive, compressed with gzip or not, into memory.
func unpack(data []byte) (*files, error) {
	var r io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		gz, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("is not an archive: %w", err)
		}
		r = gz
	}
	// Headers count too: an archive of nothing but headers is a bomb as well.
	limited := &io.LimitedReader{R: r, N: maxContent}
	content := map[string][]byte{}
	archive := tar.NewReader(limited)
	for entries := 0; ; entries++ {
		header, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return newFiles(content)
		case limited.N <= 0 || entries >= maxEntries:
			return nil, errTooLarge
		case err != nil:
			return nil, fmt.Errorf("is not a tar archive: %w", err)
		}
		name, err := entryName(header)
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue
		}
		body, err := io.ReadAll(archive)
		if err != nil {
			if limited.N <= 0 {
				return nil, errTooLarge
			}
			return nil, fmt.Errorf("is a broken tar archive: %w", err)
		}
		content[name] = body
	}
}

// entryName returns the path of a regular file, "" for what holds no content.
func entryName(header *tar.Header) (string, error) {
	refuse := func(problem string) (string, error) {
		return "", fmt.Errorf("holds %q, which %s", header.Name, problem)
	}
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeXGlobalHeader:
		return "", nil
	case tar.TypeSymlink, tar.TypeLink:
		return refuse("is a link to " + fmt.Sprintf("%q", header.Linkname) + "; links are not followed, put a regular file in its place")
	default:
		return refuse("is neither a file nor a directory")
	}
	if strings.HasPrefix(header.Name, "/") {
		return refuse("is an absolute path")
	}
	name := path.Clean(header.Name)
	switch {
	case !fs.ValidPath(name) || strings.Contains(header.Name, `\`):
		return refuse("is a path that leads out of the archive or into doubt")
	case strings.Count(name, "/") > maxDepth:
		return refuse("is nested too deep")
	case header.Typeflag == tar.TypeDir || name == ".":
		return "", nil
	}
	return name, nil
}
