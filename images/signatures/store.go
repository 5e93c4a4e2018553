package signatures

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/durable"
)

// maxFile bounds the file of one digest, in bytes.
const maxFile = 64 << 20

var digestForm = regexp.MustCompile(`^sha256:([0-9a-f]{64})$`)

// Store keeps signatures in a directory.
type Store struct{ dir string }

// NewStore returns the store in dir, which is made when something is put in.
func NewStore(dir string) *Store { return &Store{dir: dir} }

func (s *Store) file(digest string) (string, error) {
	m := digestForm.FindStringSubmatch(digest)
	if m == nil {
		return "", fmt.Errorf("%q is not a digest of the form sha256:<hex>", digest)
	}
	return filepath.Join(s.dir, "sha256", m[1]+".json"), nil
}

// Get returns what is attached to a digest, nil if nothing is.
func (s *Store) Get(digest string) (*cosign.Signatures, error) {
	path, err := s.file(digest)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB: remove it and import the image again", path, maxFile>>20)
	}
	found := &cosign.Signatures{}
	if err := durable.ReadJSON(path, found); err != nil {
		return nil, fmt.Errorf("%w: remove the file and import the image again", err)
	}
	return found, nil
}

// Add keeps signatures beside those that are there already. It writes only what
// is new.
func (s *Store) Add(more *cosign.Signatures) error {
	if more.Empty() {
		return nil
	}
	path, err := s.file(more.Digest)
	if err != nil {
		return err
	}
	have, err := s.Get(more.Digest)
	if err != nil || have == nil { // what cannot be read is replaced
		have = &cosign.Signatures{Digest: more.Digest}
	}
	have.Merge(more)
	text, err := json.Marshal(have)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	_, err = durable.WriteFileIfChanged(path, text, 0o600)
	return err
}
