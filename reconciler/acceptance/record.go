package acceptance

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/internal/signers"
)

// Record is what is known about the last accepted commit:
// <StateDir>/trust/accepted.json. It is written in one piece, so that commit
// and trust root always belong together.
type Record struct {
	Commit  string `json:"commit"`
	Subject string `json:"subject"`
	Author  string `json:"author"`
	// Signer is absent if the boot configuration trusted everybody.
	Signer     *signers.Verified `json:"signer,omitempty"`
	AcceptedAt time.Time         `json:"acceptedAt"`
	// Repository is where the commit was found.
	URL    string `json:"url"`
	Branch string `json:"branch"`
	Path   string `json:"path"`
	// BootTrust identifies the trust in the boot configuration at that time.
	BootTrust string `json:"bootTrust"`
	// TrustRoot is trust/root.yaml of the commit.
	TrustRoot string `json:"trustRoot,omitempty"`
}

const (
	recordFile   = "accepted.json"
	rootCopyFile = "root.yaml"
)

// LoadRecord reads the record from dir. It returns nil if no commit was ever
// accepted; a record that cannot be read is an error, never a first boot.
func LoadRecord(dir string) (*Record, error) {
	r := &Record{}
	path := filepath.Join(dir, recordFile)
	err := durable.ReadJSON(path, r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && (len(r.Commit) != 40 || r.BootTrust == "") {
		err = fmt.Errorf("%s has no commit or bootTrust", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of the last accepted commit: %w; restore the file from a backup, or delete it to start again from the boot configuration's trust root", err)
	}
	return r, nil
}

// Save writes the record, and beside it the trust root as a file of its own
// for people to read.
func (r *Record) Save(dir string) error {
	if err := durable.WriteJSON(filepath.Join(dir, recordFile), r, 0o600); err != nil {
		return fmt.Errorf("record the accepted commit: %w", err)
	}
	if _, err := durable.WriteFileIfChanged(filepath.Join(dir, rootCopyFile), []byte(r.TrustRoot), 0o600); err != nil {
		return fmt.Errorf("copy the trust root: %w", err)
	}
	return nil
}

// Point returns what Verify needs to go on from this record under the present
// boot configuration.
func (r *Record) Point(trust v1alpha1.BootTrust) *Point {
	if r == nil {
		return nil
	}
	return &Point{Commit: r.Commit, Reanchor: r.BootTrust != TrustID(trust)}
}

// TrustID identifies the trust in a boot configuration by its content.
func TrustID(trust v1alpha1.BootTrust) string {
	if trust.None || trust.Root == nil {
		return "none"
	}
	sum := sha256.Sum256([]byte(canonical(trust.Root)))
	return "root-" + hex.EncodeToString(sum[:])
}

// RootOf decodes the record's trust root; nil if there is none.
func (r *Record) RootOf() (*v1alpha1.TrustRoot, error) {
	if r.TrustRoot == "" {
		return nil, nil
	}
	return v1alpha1.DecodeTrustRoot(RootPath, []byte(r.TrustRoot))
}
