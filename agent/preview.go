package agent

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"testing/fstest"

	"github.com/bothy-os/bothy/reconciler"
)

// maxPreview bounds the files of a repository that are looked at, in bytes.
const maxPreview = 64 << 20

// servePreview tells what a commit, or the files of an archive, would change.
func (h *hall) servePreview(w http.ResponseWriter, r *http.Request) {
	p, err := h.preview(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(p) // the client has gone away
}

func (h *hall) preview(r *http.Request) (*reconciler.Preview, error) {
	files, err := unpack(io.LimitReader(r.Body, 2*maxPreview))
	if err != nil {
		return nil, fmt.Errorf("read the files: %w", err)
	}
	if len(files) == 0 {
		return h.reconciler.PreviewRevision(r.Context(), r.URL.Query().Get("rev"))
	}
	return h.reconciler.PreviewFiles(r.Context(), files)
}

// unpack reads an archive into memory. What is not a plain file is left out, as
// a build would not read it.
func unpack(r io.Reader) (fstest.MapFS, error) {
	files := fstest.MapFS{}
	left := int64(maxPreview)
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(header.Name)
		if header.Typeflag != tar.TypeReg || !fs.ValidPath(name) {
			continue
		}
		if left -= header.Size; left < 0 {
			return nil, fmt.Errorf("they are larger than %d MiB", maxPreview>>20)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		files[name] = &fstest.MapFile{Data: data, Mode: 0o444}
	}
}
