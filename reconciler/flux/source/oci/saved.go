package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bothy-os/bothy/internal/durable"
)

// saved is the content of the last artifact, for a restart without the network.
type saved struct {
	// Revision is that of the artifact.
	Revision string `json:"revision"`
	// Layer is the digest of the layer, "sha256:<hex>"; a file of that name holds
	// it.
	Layer       string            `json:"layer"`
	MediaType   string            `json:"mediaType"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Policy identifies the policy that believed the signature, "" if none was
	// asked for.
	Policy string `json:"policy,omitempty"`
	// Signer is who signed.
	Signer string `json:"signer,omitempty"`
	// Fields identifies the fields of the object that the content was chosen by.
	Fields string `json:"fields"`
}

const recordName = "artifact.json"

// save writes the content and then the record that names it, and removes what no
// record names any more.
func save(dir string, s *saved, layer []byte) error {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	blob, err := blobName(s.Layer)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, blob)); err != nil {
		if err := durable.WriteFile(filepath.Join(dir, blob), layer, 0o600); err != nil {
			return err
		}
	}
	if err := durable.WriteJSON(filepath.Join(dir, recordName), s, 0o600); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != recordName && e.Name() != blob {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// load reads what was saved; fs.ErrNotExist if nothing was.
func load(dir string) (*saved, []byte, error) {
	s := &saved{}
	if err := durable.ReadJSON(filepath.Join(dir, recordName), s); err != nil {
		return nil, nil, err
	}
	blob, err := blobName(s.Layer)
	if err != nil {
		return nil, nil, err
	}
	info, err := os.Stat(filepath.Join(dir, blob))
	switch {
	case err != nil:
		return nil, nil, err
	case info.Size() > maxContent:
		return nil, nil, fmt.Errorf("%s: %w", blob, errTooLarge)
	}
	layer, err := os.ReadFile(filepath.Join(dir, blob))
	if err != nil {
		return nil, nil, err
	}
	if digestOf(layer) != s.Layer {
		return nil, nil, fmt.Errorf("the saved layer %s is damaged", s.Layer)
	}
	return s, layer, nil
}

// blobName is the name of the file of a layer.
func blobName(digest string) (string, error) {
	raw, err := hex.DecodeString(digest[min(len(digest), len("sha256:")):])
	if err != nil || len(raw) != sha256.Size {
		return "", &fs.PathError{Op: "name", Path: digest, Err: fs.ErrInvalid}
	}
	return "sha256-" + hex.EncodeToString(raw), nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
